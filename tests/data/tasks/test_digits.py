"""Real scans, split so that the judge and the generator share none, and read back by the judge."""

from collections import Counter

import numpy as np
import pytest
import torch

from tests.data.tasks.test_shapes import tensors
from tinyflux_pl.core.errors import CaptionError, ConfigError
from tinyflux_pl.data.tasks.digits.grammar import parse
from tinyflux_pl.data.tasks.digits.novelty import neighbour_distances
from tinyflux_pl.data.tasks.digits.records import Digits
from tinyflux_pl.data.tasks.digits.scans import INK


def all_of(split):
    source = Digits(split)
    return [source[i] for i in range(len(source))]


def test_splits_cover_all_scans_and_are_disjoint():
    sizes = {split: len(Digits(split)) for split in ("train", "validation", "reader")}
    assert sizes == {"train": 900, "validation": 100, "reader": 797}
    scans = {split: {scan.tobytes() for scan in Digits(split).images} for split in sizes}
    assert not scans["train"] & scans["reader"] and not scans["train"] & scans["validation"]
    assert all(set(Digits(split).digits.tolist()) == set(range(10)) for split in sizes)


@pytest.mark.parametrize("size", [8, 32, 48])
def test_an_image_is_its_scan_enlarged_by_nearest_neighbour(size):
    source = Digits(size=size)
    image, block = source[5].image, size // 8
    assert image.shape == (size, size, 3) and image.dtype == np.uint8
    cells = image.reshape(8, block, 8, block, 3)
    assert (cells == cells[:, :1, :, :1, :1]).all()
    assert np.array_equal(
        np.round(cells[:, 0, :, 0, 0].astype(float) * INK / 255.0), source.images[5]
    )


def test_records_are_deterministic_and_name_their_digit():
    first, again = Digits(count=20), Digits()
    for i in range(20):
        assert first[i].sample_id == again[i].sample_id
        assert parse(first[i].caption) == first[i].attributes["digit"] == first.digits[i]
    assert len(first) == 20 and first.fingerprint() != again.fingerprint()
    with pytest.raises(IndexError):
        first[20]


@pytest.mark.parametrize(
    ("caption", "digit"), [("the digit seven", 7), ("a handwritten 7", 7), ("The digit 0.", 0)]
)
def test_every_caption_names_a_digit(caption, digit):
    assert parse(caption) == digit


@pytest.mark.parametrize("caption", ["", "a red circle", "the digits 3 and 4", "the digit 12"])
def test_a_caption_without_one_digit_is_an_error_with_examples(caption):
    with pytest.raises(CaptionError, match="the digit seven"):
        parse(caption)


@pytest.mark.parametrize(
    "settings", [{"split": "held_out"}, {"size": 30}, {"count": 0}, {"count": 901}]
)
def test_invalid_settings_are_refused(settings):
    with pytest.raises(ConfigError):
        Digits(**settings)


def test_prompts_are_balanced_over_the_digits():
    prompts = Digits().prompts(80, seed=2)
    assert Counter(parse(p) for p in prompts) == dict.fromkeys(range(10), 8)
    assert prompts == Digits().prompts(80, seed=2) != Digits().prompts(80, seed=3)
    with pytest.raises(ConfigError, match="train"):
        Digits().prompts(8, "held_out")


@pytest.mark.parametrize("split", ["train", "validation"])
def test_the_verifier_reads_held_out_scans(split):
    records = all_of(split)
    kept = Digits().verifier().check(tensors(records), [record.caption for record in records])
    assert kept["all"].float().mean() >= 0.97 and torch.equal(kept["all"], kept["digit"])


def test_the_verifier_rejects_wrong_captions():
    records = all_of("validation")
    captions = [f"the digit {(record.attributes['digit'] + 1) % 10}" for record in records]
    assert Digits().verifier().check(tensors(records), captions)["all"].float().mean() <= 0.02


def test_images_without_a_digit_are_read_as_none():
    noise = torch.randn(10, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for images in (
        noise,
        -torch.ones(1, 3, 32, 32),
        torch.ones(1, 3, 32, 32),
        torch.full((1, 3, 32, 32), torch.nan),
    ):
        assert all(seen["digit"] is None for seen in Digits().verifier().read(images))


def test_neighbour_distances_reveal_copies_of_training_scans():
    training, validation = tensors(all_of("train")), tensors(all_of("validation"))
    copies, honest = (
        neighbour_distances(training[:50], training),
        neighbour_distances(validation, training),
    )
    assert copies["generated"][0.95] < 1e-5 and copies["held_out"][0.05] > 0.3
    assert honest["generated"] == pytest.approx(honest["held_out"], abs=0.01)
