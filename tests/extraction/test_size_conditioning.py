"""The original size and crop of each picture reach the network, through the cache and mixtures."""

import numpy as np
import pytest
import torch
from PIL import Image

from tinyflux_pl.cache.dataset import CachedDataset
from tinyflux_pl.cache.mixture import Mixture
from tinyflux_pl.cache.sample_keys import keys_of
from tinyflux_pl.cache.store import CacheStore
from tinyflux_pl.codecs.pixel_folding import PixelFolding
from tinyflux_pl.core.size_conditioning import size_ids
from tinyflux_pl.data.images.fit import fit
from tinyflux_pl.data.records.folder import Folder
from tinyflux_pl.data.records.image_pairs import PairedImages
from tinyflux_pl.data.tasks.shapes.records import Shapes
from tinyflux_pl.extraction.encode import encode, encodings_fingerprint
from tinyflux_pl.text.hashed_words import HashedWords

SIZES = {"a": (60, 120), "b": (64, 32), "c": (16, 16), "d": (32, 32)}  # height and width
CROPPED = {
    "a": [60, 120, 0, 16, 32, 32],
    "b": [64, 32, 16, 0, 32, 32],
    "c": [16, 16, 0, 0, 32, 32],
    "d": [32, 32, 0, 0, 32, 32],
}


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "set"
    root.mkdir()
    for name, (height, width) in SIZES.items():
        Image.new("RGB", (width, height), "red").save(root / f"{name}.png")
        (root / f"{name}.txt").write_text(name)
    return root


def cached(root, records):
    codec, text = PixelFolding(4), HashedWords(width=8, length=4)
    store = CacheStore.create(
        root, "s", len(records), 3, records.fingerprint(), lambda: keys_of(records)
    )
    store.begin_group("encodings", encodings_fingerprint(codec, text, "float32"))
    encode(store, records, codec, text, torch.float32, "s")
    return CachedDataset(CacheStore.open(root))


def test_crop_offsets_equal_the_position_of_the_crop():
    """A mark at the crop's corner in the scaled picture lies at the corner of the fitted one."""
    pixels = np.zeros((60, 120, 3), np.uint8)
    *_, top, left, height, width = size_ids((60, 120), (30, 30), "crop")
    assert (top, left, height, width) == (0, 15, 30, 30)
    pixels[:, 2 * left :] = 255
    fitted = fit(pixels, 30)
    assert fitted[:, 1:].min() > 240
    pixels[:, 2 * left - 8 :] = 255
    pixels[:, 2 * left + 8 :] = 0
    assert fit(pixels, 30)[0, :3].min() > 240 and fit(pixels, 30)[0, 6:].max() < 20


def test_each_sample_has_its_own_sizes_in_the_batch_and_the_conditioning(tmp_path, folder):
    data = cached(tmp_path / "cache", Folder(folder, 32, split="all"))
    batch = data.__getitems__([3, 0, 2, 1])
    expected = torch.tensor([CROPPED[name] for name in "dacb"], dtype=torch.float32)
    assert batch.captions == list("dacb") and torch.equal(batch.size_ids, expected)
    assert torch.equal(batch.conditioning().size_ids, expected)


def test_a_padded_picture_is_not_cropped(folder):
    ids_by_source = {
        r.source: r.attributes["size_ids"] for r in Folder(folder, 32, "pad", split="all")
    }
    assert ids_by_source["a.png"] == [60, 120, 0, 0, 32, 32]


def test_targets_of_image_pairs_have_size_conditioning(tmp_path):
    for name in ("a_target.png", "a_ref.png"):
        Image.new("RGB", (120, 60), "red").save(tmp_path / name)
    records = PairedImages(tmp_path, 32, split="all", allow_missing_captions=True)
    assert records[0].attributes["size_ids"] == CROPPED["a"]


def test_synthetic_images_report_their_own_size_alone_and_in_a_mixture(tmp_path, folder):
    drawn = cached(tmp_path / "drawn", Shapes(count=4, size=32))
    assert drawn.__getitems__([0]).size_ids is None
    mixed = Mixture({0: drawn, 1: cached(tmp_path / "cache", Folder(folder, 32, split="all"))})
    batch = mixed.__getitems__([4, 1, 5])
    expected_ids = [32, 32, 0, 0, 32, 32]
    assert batch.size_ids.tolist() == [CROPPED["a"], expected_ids, CROPPED["b"]]
