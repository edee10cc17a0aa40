"""Names that scripts outside this repository import are the present ones."""

from tinyflux_pl.data import image_decoding, paired_images
from tinyflux_pl.data.images import decode
from tinyflux_pl.data.records import image_pairs
from tinyflux_pl.inference import pipeline, prompts


def test_earlier_names_refer_to_the_present_functions_and_classes():
    assert image_decoding.decode is decode.decode
    assert paired_images.PairedImages is image_pairs.PairedImages
    assert pipeline.read_prompts is prompts.read_prompts
