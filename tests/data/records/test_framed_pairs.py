"""Image pairs with frames: what lies over a target is cropped with it, and no pair is left out."""

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data.records.test_framed_folder import stored
from tinyflux_pl.cache.dataset import CachedDataset
from tinyflux_pl.data.records.folder import Folder
from tinyflux_pl.data.records.image_pairs import PairedImages

SIZES = ((48, 24), (32, 32), (24, 48), (50, 25), (32, 30))
BUCKETS = {"enabled": True, "step": 4}


def put(root, kind, sizes=SIZES):
    """Noise with a white corner as targets, copies as references, masks of the corner."""
    root.mkdir(parents=True, exist_ok=True)
    for i, (width, height) in enumerate(sizes):
        pixels = np.random.default_rng(i).integers(0, 200, (height, width, 3), np.uint8)
        pixels[: height // 2, : width // 2] = 255
        Image.fromarray(pixels).save(root / f"{i}_target.png")
        other = (
            pixels if kind == "ref" else np.where(pixels[..., 0] == 255, 255, 0).astype(np.uint8)
        )
        Image.fromarray(other).save(root / f"{i}_{kind}.png")
        (root / f"{i}_caption.txt").write_text(f"pair {i}")
    return root


def pairs(root, **options):
    return PairedImages(root, 16, split="all", **{"buckets": BUCKETS, **options})


def test_every_pair_is_in_the_frame_of_its_target_and_pairs_of_a_frame_lie_together(tmp_path):
    records = pairs(put(tmp_path, "ref"))
    shapes = [record.image.shape[:2] for record in records]
    assert sorted(int(r.target[0]) for r in records.rows) == list(range(len(SIZES)))
    frames = dict(zip((r.target[0] for r in records.rows), shapes, strict=True))
    assert frames == {"0": (12, 20), "1": (16, 16), "2": (20, 12), "3": (12, 20), "4": (16, 16)}
    assert [f for f, count in records.segments for _ in range(count)] == shapes
    assert all(r.attributes["size_ids"][-2:] == list(r.image.shape[:2]) for r in records)


def test_a_reference_has_its_target_s_frame_and_crop_or_the_size_of_its_own(tmp_path):
    root = put(tmp_path, "ref")
    for record in pairs(root):
        assert np.array_equal(record.references[0], record.image)
    constant = pairs(root, reference_size=(8, 8))
    assert {record.references[0].shape for record in constant} == {(8, 8, 3)}
    assert [r.image.shape for r in constant] == [r.image.shape for r in pairs(root)]


def test_a_hole_lies_where_it_lay_in_its_target(tmp_path):
    for record in pairs(put(tmp_path, "mask")):
        assert record.inpaint_mask.shape == record.image.shape[:2] and record.inpaint_mask.any()
        white = record.image.min(-1)
        assert white[record.inpaint_mask].mean() > 245 and white[~record.inpaint_mask].mean() < 160


@pytest.mark.parametrize("kind", ["ref", "mask"])
def test_each_batch_has_one_shape_and_no_pair_is_left_out(tmp_path, kind):
    records = pairs(put(tmp_path / "pairs", kind))
    dataset = CachedDataset(stored(tmp_path / "store", records)[0])
    (runs,) = dataset.runs
    assert [len(rows) for rows, _ in runs] == [count for _, count in records.segments]
    seen = []
    for rows, shape in runs:
        batch = dataset.__getitems__(list(rows))
        part = batch.inpaint if kind == "mask" else batch.references[0]
        assert part.shape[-2:] == batch.latents.shape[-2:] == torch.Size(shape[0][1:])
        seen += batch.sample_ids.tolist()
    assert sorted(seen) == sorted(record.sample_id for record in records)


def test_frames_are_in_the_keys_of_the_cache(tmp_path):
    root = put(tmp_path, "ref")
    framed, square = pairs(root), pairs(root, buckets=None)
    assert framed.fingerprint() != square.fingerprint()
    keys, square_keys = framed.sample_keys(), square.sample_keys()
    assert sum(key in square_keys for key in keys) == 2  # those whose frame is the square


@pytest.mark.parametrize("dataset", [Folder, PairedImages])
def test_a_picture_that_lies_on_its_side_has_the_frame_of_its_upright_shape(tmp_path, dataset):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (48, 24), "red").save(tmp_path / "a_target.jpg", exif=exif)
    (tmp_path / "a_target.txt").write_text("a tower")
    if dataset is PairedImages:
        Image.new("RGB", (24, 48), "blue").save(tmp_path / "a_ref.png")
    options = {"buckets": BUCKETS, "split": "all", "allow_missing_captions": True}
    assert dataset(tmp_path, 16, **options)[0].image.shape == (20, 12, 3)
