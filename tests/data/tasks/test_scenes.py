"""Scenes hold two objects in a relation, or several alike, and are read back from their pixels."""

from collections import Counter

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.data.tasks.test_shapes import tensors, worn
from tinyflux_pl.core.errors import CaptionError, ConfigError
from tinyflux_pl.data.tasks.scenes.grammar import COUNTS, RELATIONS, Scene, parse
from tinyflux_pl.data.tasks.scenes.records import Scenes
from tinyflux_pl.data.tasks.shapes.grammar import HELD_OUT_PAIRS, SEEN_PAIRS
from tinyflux_pl.data.tasks.shapes.render import COLOURS, PALETTE, SHAPES, ShapeInstance, draw


@pytest.fixture(scope="module")
def records():
    drawn = [Scenes("train", 130, seed=2), Scenes("held_out", 130, seed=2)]
    return [source[i] for source in drawn for i in range(130)]


def drawn_tensor(objects):
    things = [
        ShapeInstance(shape, np.asarray(PALETTE[colour]), x, y, 5.5)
        for colour, shape, x, y in objects
    ]
    return torch.from_numpy(draw(things, 48, 230.0)[0]).permute(2, 0, 1)[None].float() / 127.5 - 1.0


def wrong(record, claim):
    """A caption of the record that is wrong in one claim, or None where it makes no such claim."""
    scene = Scene(tuple(map(tuple, record.attributes["objects"])), record.attributes["relation"])
    (colour, shape), *rest = scene.objects
    if claim == "relation":
        turned = {"left of": "right of", "right of": "above", "above": "below", "below": "left of"}
        return scene.relation and Scene(scene.objects, turned[scene.relation]).caption(0)
    if claim == "count":
        return (
            None
            if scene.relation
            else Scene((scene.objects[0],) * (2 + (len(rest)) % 3)).caption(0)
        )
    step = lambda choices, now: choices[(choices.index(now) + 1) % len(choices)]  # noqa: E731
    first = (step(COLOURS, colour), shape) if claim == "colour" else (colour, step(SHAPES, shape))
    return Scene(
        (first, *rest) if scene.relation else (first,) * len(scene.objects), scene.relation
    ).caption(0)


def test_a_record_is_a_function_of_seed_split_and_index():
    one, other = Scenes(count=5, seed=1)[3], Scenes(count=50, seed=1)[3]
    assert np.array_equal(one.image, other.image) and one.caption == other.caption
    assert Scenes("validation", 5, seed=1)[3].sample_id != one.sample_id
    assert (
        len(
            {
                str(s.fingerprint())
                for s in (Scenes(), Scenes(seed=1), Scenes("held_out"), Scenes(size=64))
            }
        )
        == 4
    )


def test_captions_describe_the_image(records):
    for record in records:
        scene, attributes = parse(record.caption), record.attributes
        assert [list(pair) for pair in scene.objects] == attributes["objects"]
        assert scene.relation in (None, attributes["relation"])
    unlike = [parse(r.caption).relation is None for r in records if r.attributes["relation"]]
    assert 0.05 < sum(unlike) / len(unlike) < 0.3
    assert {parse(record.caption).relation for record in records} == {None, *RELATIONS}
    groups = {len(r.attributes["objects"]) for r in records if r.attributes["relation"] is None}
    assert groups == set(COUNTS.values())


def test_two_objects_without_a_relation_have_any_position():
    assert parse("a red circle and a blue square") == Scene((("red", "circle"), ("blue", "square")))
    assert (
        Scene((("red", "circle"), ("blue", "square"))).caption(0)
        == "a red circle and a blue square"
    )
    image = drawn_tensor([("red", "circle", 34.0, 14.0), ("blue", "square", 14.0, 34.0)])
    reader = Scenes().verifier()
    assert reader.check(image, ["a red circle and a blue square"])["all"].item()
    assert not reader.check(image, ["a red square and a blue circle"])["all"].item()
    assert not reader.stated(["a red circle and a blue square"])["relation"].item()


def test_splits_use_their_attribute_pairs_and_relations_join_different_objects(records):
    for record in records:
        scene = parse(record.caption)
        pairs = HELD_OUT_PAIRS if "held_out" in record.source else SEEN_PAIRS
        assert set(scene.objects) <= set(pairs)
        if scene.relation:
            (colour_a, shape_a), (colour_b, shape_b) = scene.objects
            assert colour_a != colour_b and shape_a != shape_b


@pytest.mark.parametrize(
    "caption",
    [
        "",
        "a red circle",
        "five red circles",
        "a red circle and a red circle",
        "a red circle beside a blue square",
    ],
)
def test_a_caption_outside_the_grammar_is_refused_with_the_grammar(caption):
    with pytest.raises(CaptionError, match="left of"):
        parse(caption)


def test_an_unknown_split_or_a_small_image_is_refused():
    with pytest.raises(ConfigError, match="held_out"):
        Scenes("test")
    with pytest.raises(ConfigError, match="24"):
        Scenes(size=23)


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 0, 0), (0.25, 5, 35), (1.0, 80, 80)])
def test_the_share_of_relations_is_that_of_the_argument(share, least, most):
    """Of 80 scenes; short captions leave the relation out, the attributes do not."""
    records = Scenes("train", 80, relation_share=share)
    related = sum(records[i].attributes["relation"] is not None for i in range(80))
    assert least <= related <= most
    assert records.fingerprint() != Scenes("train", 80).fingerprint()


def test_a_share_outside_zero_to_one_is_refused():
    with pytest.raises(ConfigError, match="relation_share"):
        Scenes(relation_share=1.5)


def test_at_half_the_size_a_scene_is_the_same_one():
    small, full = Scenes(count=8, size=24), Scenes(count=8)
    for i in range(8):
        assert small[i].captions == full[i].captions
        pixels = torch.from_numpy(np.asarray(full[i].image)).float().permute(2, 0, 1)
        halved = functional.avg_pool2d(pixels, 2)
        drawn = torch.from_numpy(np.asarray(small[i].image)).float().permute(2, 0, 1)
        assert (halved - drawn).abs().mean() < 4


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_prompts_are_balanced_over_attributes(split):
    scenes = [parse(prompt) for prompt in Scenes().prompts(120, split)]
    assert Counter(scene.relation for scene in scenes) == {None: 60, **dict.fromkeys(RELATIONS, 15)}
    groups = Counter(len(scene.objects) for scene in scenes if scene.relation is None)
    assert groups == dict.fromkeys(COUNTS.values(), 20)
    assert set(Counter(scene.objects[0] for scene in scenes).values()) == {
        120 // (10 if split == "held_out" else 30)
    }


def test_the_verifier_reads_degraded_images(records):
    kept = Scenes().verifier().check(worn(tensors(records)), [record.caption for record in records])
    assert all(
        kept[claim].float().mean() >= 0.995
        for claim in ("all", "colour", "shape", "relation", "count")
    )


@pytest.mark.parametrize("claim", ["colour", "shape", "relation", "count"])
def test_a_caption_wrong_in_one_claim_is_rejected(records, claim):
    wrong_captions = [(record, wrong(record, claim)) for record in records]
    wrong_captions = [(record, caption) for record, caption in wrong_captions if caption]
    assert len(wrong_captions) > 100
    kept = (
        Scenes()
        .verifier()
        .check(
            worn(tensors([r for r, _ in wrong_captions])),
            [caption for _, caption in wrong_captions],
        )
    )
    assert kept["all"].float().mean() <= 0.01 and kept[claim].float().mean() <= 0.01


def test_swapped_colours_fail_only_the_claims_that_bind_them():
    image = drawn_tensor([("red", "square", 14.0, 24.0), ("blue", "circle", 34.0, 24.0)])
    kept = Scenes().verifier().check(image, ["a red circle left of a blue square"])
    assert kept["colour"].item() and kept["shape"].item() and kept["count"].item()
    assert not kept["relation"].item() and not kept["all"].item()


def test_a_third_object_fails_the_count():
    objects = [
        ("red", "circle", 10.0, 24.0),
        ("blue", "square", 38.0, 24.0),
        ("green", "cross", 24.0, 40.0),
    ]
    kept = Scenes().verifier().check(drawn_tensor(objects), ["a red circle left of a blue square"])
    assert kept["relation"].item() and not kept["count"].item() and not kept["all"].item()


def test_an_empty_image_satisfies_no_claim():
    kept = Scenes().verifier().check(torch.ones(1, 3, 48, 48), ["two red circles"])
    assert not any(kept[claim].any() for claim in kept)
