"""Mirror images in a cache: drawn by (seed, sample, step), with masks and maps."""

import numpy as np
import pytest
import torch

from tinyflux_pl.cache.dataset import CachedDataset
from tinyflux_pl.cache.flipped_columns import drawn_flips
from tinyflux_pl.cache.sample_order import StepRows
from tinyflux_pl.cache.store import CacheStore
from tinyflux_pl.codecs.pixel_folding import PixelFolding
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.hint_forms import PIXELS
from tinyflux_pl.core.record import Record
from tinyflux_pl.extraction.columns import image_columns
from tinyflux_pl.text.hashed_words import HashedWords

CODEC = PixelFolding(2)


def records(count=4, **parts):
    generator = np.random.default_rng(0)
    pictures = generator.integers(0, 256, (count, 8, 12, 3), np.uint8)
    masks = generator.random((count, 8, 12)) > 0.5
    return [
        Record(picture, f"picture {i}", i, mask=mask, hint=255 - picture, **parts)
        for i, (picture, mask) in enumerate(zip(pictures, masks, strict=True))
    ]


@pytest.fixture
def store(tmp_path):
    store = CacheStore.create(tmp_path, "toy", 4, 4, {})
    store.begin_group("encodings", {})
    columns = image_columns(records(), CODEC, torch.float32, "cpu", 4, PIXELS, flip=True)
    text = HashedWords(width=8, length=4).encode(["picture"] * 4)
    columns |= {f"text.{name}": getattr(text, name) for name in ("tokens", "mask", "pooled")}
    store.write_shard("encodings", 0, columns, [f"picture {i}" for i in range(4)])
    store.begin_group("lune", {})
    store.write_shard("lune", 0, {"features": torch.ones(4, 2, 3)})
    return store


@pytest.mark.parametrize("in_memory", [False, True])
def test_a_step_sees_pictures_masks_and_maps_mirrored_together(store, in_memory):
    data = CachedDataset(store, ("lune",), in_memory=in_memory, seed=5)
    plain = data.__getitems__([0, 1, 2, 3])
    both = {0: 0, 1: 0}
    for step in range(4):
        batch = data.__getitems__(StepRows([3, 1, 0, 2], step))
        flips = drawn_flips(5, [3, 1, 0, 2], step).tolist()
        for row, (i, flipped) in enumerate(zip([3, 1, 0, 2], flips, strict=True)):
            both[int(flipped)] += 1
            picture, expected = CODEC.decode(batch.latents[row : row + 1])[0], plain.latents[i]
            expected = CODEC.decode(expected[None])[0]
            assert torch.equal(picture, expected.flip(-1) if flipped else expected)
            for part in ("masks", "hint"):
                value, other = getattr(batch, part)[row], getattr(plain, part)[i]
                assert torch.equal(value, other.flip(-1) if flipped else other)
            assert bool(batch.expert_present["lune"][row]) is not flipped
    assert min(both.values()) > 2
    assert bool(plain.expert_present["lune"].all())


def test_a_draw_depends_on_seed_sample_and_step_alone():
    ids = list(range(200))
    first = drawn_flips(1, ids, 7)
    assert torch.equal(first[50:], drawn_flips(1, ids[50:], 7)) and 70 < int(first.sum()) < 130
    for other in (drawn_flips(2, ids, 7), drawn_flips(1, ids, 8)):
        assert 60 < int((first != other).sum()) < 140


def test_pictures_with_references_or_holes_are_refused():
    block = records(1, references=(np.zeros((8, 12, 3), np.uint8),))
    with pytest.raises(ConfigError, match="no mirror images") as caught:
        image_columns(block, CODEC, torch.float32, "cpu", 1, PIXELS, flip=True)
    assert caught.value.where == "data.flip"
