"""Shapes are drawn by rule, captioned in full, and read back from their pixels."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tinyflux_pl.core.errors import CaptionError, ConfigError
from tinyflux_pl.data.tasks.shapes.grammar import (
    HELD_OUT_PAIRS,
    POSITIONS,
    SEEN_PAIRS,
    SHORT_CAPTIONS,
    SIZES,
    TEMPLATES,
    parse,
)
from tinyflux_pl.data.tasks.shapes.records import Shapes
from tinyflux_pl.data.tasks.shapes.render import (
    COLOURS,
    SHAPES,
)


def tensors(records):
    pixels = np.stack([record.image for record in records])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def worn(images, sigma=0.1, blur=0.5):
    """Blurred, then noisy, as a generator's pictures are."""
    taps = torch.exp(-0.5 * (torch.arange(-3, 4) / blur) ** 2)
    taps = taps / taps.sum()
    flat = F.pad(images, (3, 3, 3, 3), mode="replicate").flatten(0, 1)[:, None]
    flat = F.conv2d(F.conv2d(flat, taps.view(1, 1, 1, 7)), taps.view(1, 1, 7, 1))
    return flat[:, 0].view_as(images) + sigma * torch.randn(
        images.shape, generator=torch.Generator().manual_seed(0)
    )


def altered(record, claim):
    """A caption of the record that is wrong in one claim."""
    choices = {"colour": COLOURS, "shape": SHAPES, "position": tuple(POSITIONS), "size": SIZES}[
        claim
    ]
    wrong = [choice for choice in choices if choice != record.attributes[claim]]
    stated = {**record.attributes, claim: wrong[record.sample_id % len(wrong)]}
    return full_caption(stated)


def full_caption(attributes):
    return (
        f"a {attributes['size']} {attributes['colour']} {attributes['shape']}, "
        f"{attributes['position']}"
    )


@pytest.fixture(scope="module")
def records():
    drawn = [Shapes("train", 200, seed=3), Shapes("held_out", 200, seed=3)]
    return [source[i] for source in drawn for i in range(200)]


def test_a_record_is_a_function_of_seed_split_and_index():
    first, again = Shapes(count=8, seed=1), Shapes(count=900, seed=1)
    backwards = {i: again[i] for i in reversed(range(8))}
    for i in range(8):
        assert (
            np.array_equal(first[i].image, backwards[i].image)
            and first[i].caption == backwards[i].caption
        )
        assert first[i].sample_id == backwards[i].sample_id
    for other in (Shapes("validation", 8, seed=1), Shapes(count=8, seed=2)):
        assert all(other[i].sample_id != first[i].sample_id for i in range(8))


def test_records_are_rgb_bytes_with_their_coverage():
    record = Shapes(count=4, size=48)[2]
    assert record.image.shape == (48, 48, 3) and record.image.dtype == np.uint8
    assert record.mask.shape == (48, 48) and record.mask.dtype == np.float32
    assert record.mask.min() == 0.0 and record.mask.max() == 1.0
    ground = record.image[record.mask == 0]
    assert (ground == ground[0]).all() and ground[0].min() > 200
    with pytest.raises(IndexError):
        Shapes(count=4)[4]


def test_different_datasets_have_different_fingerprints():
    datasets = [Shapes(), Shapes("held_out"), Shapes(count=5), Shapes(size=64), Shapes(seed=1)]
    assert len({str(shapes.fingerprint()) for shapes in datasets}) == len(datasets)
    assert Shapes().fingerprint() == Shapes().fingerprint()


def test_held_out_pairs_are_a_quarter_and_leave_every_colour_and_shape_seen():
    assert len(HELD_OUT_PAIRS) >= 0.25 * len(COLOURS) * len(SHAPES)
    assert not set(HELD_OUT_PAIRS) & set(SEEN_PAIRS)
    assert {c for c, _ in SEEN_PAIRS} == set(COLOURS) and {s for _, s in SEEN_PAIRS} == set(SHAPES)
    lost = [sum(s == shape for _, s in HELD_OUT_PAIRS) for shape in SHAPES]
    assert max(lost) == min(lost)


@pytest.mark.parametrize("split", ["train", "validation", "held_out"])
def test_a_split_draws_all_of_its_pairs_and_no_other(split):
    source = Shapes(split, 1200)
    pairs = {tuple(source[i].attributes[k] for k in ("colour", "shape")) for i in range(1200)}
    assert pairs == set(HELD_OUT_PAIRS if split == "held_out" else SEEN_PAIRS)


def test_captions_state_true_attributes_and_some_omit_attributes(records):
    stated = [parse(record.caption) for record in records]
    assert all(
        caption.items() <= record.attributes.items()
        for caption, record in zip(stated, records, strict=True)
    )
    complete = sum(len(caption) == 4 for caption in stated) / len(stated)
    assert complete == pytest.approx(1 - SHORT_CAPTIONS, abs=0.07)
    left_out = {frozenset(caption) for caption in stated}
    assert len(left_out) == 8 and all("shape" in names for names in left_out)
    assert parse("A large red circle, center.")["position"] == "centre"
    assert len(TEMPLATES) >= 4


@pytest.mark.parametrize(
    ("caption", "attributes"),
    [
        ("a circle", {"shape": "circle"}),
        ("a red circle", {"colour": "red", "shape": "circle"}),
        (
            "top left: an orange cross",
            {"colour": "orange", "shape": "cross", "position": "top left"},
        ),
        ("a small square on the right", {"size": "small", "shape": "square", "position": "right"}),
    ],
)
def test_a_short_caption_is_parsed_into_its_attributes(caption, attributes):
    assert parse(caption) == attributes


@pytest.mark.parametrize(
    "caption",
    [
        "",
        "red",
        "a large red blue circle, top",
        "a large red circle, top middle",
        "a large red dog, top",
    ],
)
def test_a_caption_outside_the_grammar_is_refused_with_the_grammar(caption):
    with pytest.raises(CaptionError, match="diamond"):
        parse(caption)


def test_short_prompts_omit_every_attribute_equally_often():
    prompts = Shapes().prompts(140, "short")
    stated = [frozenset(parse(prompt)) for prompt in prompts]
    assert len(set(stated)) == 7
    assert {stated.count(names) for names in set(stated)} == {20}


def test_an_attribute_omitted_by_a_caption_is_not_checked(records):
    images = tensors(records)
    captions = [
        f"{'an' if r.attributes['colour'] == 'orange' else 'a'} {r.attributes['colour']} "
        f"{r.attributes['shape']}"
        for r in records
    ]
    reader = Shapes().verifier()
    assert reader.check(images, captions)["all"].float().mean() >= 0.995
    stated = reader.stated(captions[:1])
    assert stated["colour"].all() and not stated["position"].any() and not stated["size"].any()
    assert not reader.check(torch.ones(1, 3, 32, 32), ["a red circle"])["position"].any()


def test_an_unknown_split_is_refused_with_the_valid_ones():
    with pytest.raises(ConfigError, match="held_out"):
        Shapes("test")


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_prompts_are_balanced_over_attributes(split):
    prompts = Shapes().prompts(90, split, seed=4)
    parsed = [parse(prompt) for prompt in prompts]
    assert all(len(stated) == 4 for stated in parsed)
    pairs = HELD_OUT_PAIRS if split == "held_out" else SEEN_PAIRS
    for choices, key in (
        (pairs, lambda s: (s["colour"], s["shape"])),
        (POSITIONS, lambda s: s["position"]),
        (SIZES, lambda s: s["size"]),
    ):
        assert {sum(key(s) == choice for s in parsed) for choice in choices} == {90 // len(choices)}
    assert prompts == Shapes().prompts(90, split, seed=4) != Shapes().prompts(90, split, seed=5)


def test_the_verifier_reads_degraded_images(records):
    kept = (
        Shapes()
        .verifier()
        .check(worn(tensors(records)), [full_caption(r.attributes) for r in records])
    )
    assert kept["all"].float().mean() >= 0.995


@pytest.mark.parametrize("claim", ["colour", "shape", "position", "size"])
def test_a_caption_wrong_in_one_claim_fails_that_claim(records, claim):
    kept = (
        Shapes()
        .verifier()
        .check(worn(tensors(records)), [altered(record, claim) for record in records])
    )
    assert kept["all"].float().mean() <= 0.01 and kept[claim].float().mean() <= 0.01
    other_claims = [
        kept[k].float().mean() for k in ("colour", "shape", "position", "size") if k != claim
    ]
    assert min(other_claims) >= 0.995
