"""FLUX.3 from disk to image equals diffusers' modular pipeline on equal weights and noise."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from tests import releases_flux2
from tests.families import drawing, table

HEIGHT, WIDTH, STEPS = 32, 48, 3


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flux3")
    return folder, releases_flux2.flux3(folder)


def reference(folder, parts, latents, **more):
    from diffusers import FlowMatchEulerDiscreteScheduler
    from diffusers.modular_pipelines.flux3.modular_blocks_flux3 import Flux3AutoBlocks
    from transformers import AutoTokenizer

    net, vae, encoder = parts
    words = AutoTokenizer.from_pretrained(folder / "tokenizer")
    processor = SimpleNamespace(tokenizer=words, apply_chat_template=words.apply_chat_template)
    blocks = Flux3AutoBlocks()
    blocks.sub_blocks.pop("prompt_upsampler")  # another model, which rewrites the prompt
    pipeline = blocks.init_pipeline()
    scheduler = FlowMatchEulerDiscreteScheduler(shift=6.93)
    pipeline.update_components(transformer=net, vae=vae, text_encoder=encoder, scheduler=scheduler)
    pipeline.tokenizer = processor  # the real one is a processor, which wants packages for pictures
    pipeline.set_progress_bar_config(disable=True)
    options = dict(
        height=HEIGHT,
        width=WIDTH,
        num_inference_steps=STEPS,
        latents=latents,
        output_type="pt",
        **more,
    )
    return pipeline(
        prompt=drawing.PROMPT, text_encoder_out_layers=(1, 2, 4), **options, output="images"
    )


def test_text_to_image_equals_diffusers(release):
    folder, parts = release
    small = ("text.layers=[1,2,4]", f"sampler.steps={STEPS}")
    built = drawing.project_pipeline("flux3", folder, HEIGHT, WIDTH, *small)
    table.check(
        "flux3",
        drawing.difference(drawing.draw(built), reference(folder, parts, drawing.noise(built))),
    )


def test_two_references_equal_diffusers(release, tmp_path):
    folder, parts = release
    files = []
    for k, size in enumerate(((77, 70), (68, 101))):
        pixels = np.random.default_rng(k).integers(0, 255, (9, 9, 3), np.uint8)
        Image.fromarray(pixels).resize(size).save(tmp_path / f"{k}.png")
        files.append(tmp_path / f"{k}.png")
    small = (
        "text.layers=[1,2,4]",
        f"sampler.steps={STEPS}",
        f"reference=[{','.join(map(str, files))}]",
    )
    built = drawing.project_pipeline("flux3", folder, HEIGHT, WIDTH, *small)
    image = reference(
        folder, parts, drawing.noise(built), image=[Image.open(file) for file in files]
    )
    assert drawing.difference(drawing.draw(built), image) <= table.LARGEST


def test_parameter_counts_equal_the_published_model():
    parameters = table.Family.of("flux3").parameters
    assert parameters == 5_538_458_368 and round(parameters / 1e9, 3) == 5.538
