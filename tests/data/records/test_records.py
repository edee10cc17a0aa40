"""A folder of images and captions becomes records; what is missing, bad or outside is named."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from tinyflux_pl.core.errors import CaptionError, ConfigError, DataError, ImageError, UntrustedFile
from tinyflux_pl.core.record import Records
from tinyflux_pl.data.records.folder import Folder


def make(root, count=6, captions=True):
    for i in range(count):
        path = root / ("sub" if i % 2 else "") / f"{i}.{('png', 'jpg', 'PNG')[i % 3]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20 + i, 24), (40 * i % 256, 90, 255 - 30 * i)).save(path)
        if captions:
            path.with_suffix(".txt").write_text(f" caption {i}\n")
    return root


def all_records(root, **options):
    return Folder(root, **{"size": 16, "split": "all", **options})


def test_images_are_read_with_their_text_files(tmp_path):
    records = all_records(make(tmp_path))
    assert [r.source for r in records] == [
        "0.png",
        "2.PNG",
        "4.jpg",
        "sub/1.jpg",
        "sub/3.png",
        "sub/5.PNG",
    ]
    assert [r.caption for r in records] == [f"caption {i}" for i in (0, 2, 4, 1, 3, 5)]
    assert all(
        r.image.shape == (16, 16, 3) and r.image.dtype == np.uint8 and r.mask is None
        for r in records
    )
    assert records[1].image[0, 0].tolist() == [80, 90, 195] and records[3].attributes[
        "original_size"
    ] == [24, 21]
    assert (
        len({r.sample_id for r in records}) == 6
        and records[0].sample_id == all_records(tmp_path)[0].sample_id
    )
    sized: Records = records
    assert sized.name == "folder" and records.image_shape == (16, 16, 3)
    with pytest.raises(IndexError):
        records[6]


@pytest.mark.parametrize(
    "name",
    ["../out.png", "/etc/hostname", "a\\b.png", "a\0.png", "", "link.png", "sub/../../out.png"],
)
def test_files_outside_the_dataset_are_refused(tmp_path, name):
    root = make(tmp_path / "set", 1)
    make(tmp_path, 1)
    os.rename(tmp_path / "0.png", tmp_path / "out.png")
    if name == "link.png":
        (root / name).symlink_to(tmp_path / "out.png")
    (root / "metadata.json").write_text(json.dumps([{"file_name": name, "text": "x"}]))
    with pytest.raises((UntrustedFile, CaptionError), match=r"dataset|no file_name"):
        all_records(root)


def test_caption_and_mask_links_may_not_leave_the_dataset(tmp_path):
    root = make(tmp_path / "set", 2)
    (tmp_path / "secret.txt").write_text("secret")
    (root / "0.txt").unlink()
    (root / "0.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(UntrustedFile, match="leaves the dataset"):
        all_records(root)


def test_rows_for_missing_files_and_missing_folders_are_refused(tmp_path):
    make(tmp_path, 1)
    (tmp_path / "metadata.json").write_text('{"0.png": "x", "gone.png": "y"}')
    with pytest.raises(DataError, match=r"gone\.png, which is not there"):
        all_records(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        all_records(tmp_path / "none")
    with pytest.raises(CaptionError, match="no such file of captions"):
        all_records(tmp_path, caption_file="typo.jsonl")
    (tmp_path / "void").mkdir()
    with pytest.raises(DataError, match="no usable image"):
        all_records(tmp_path / "void")
    with pytest.raises(ConfigError):
        all_records(tmp_path, split="test")


def test_bad_images_are_all_named_or_skipped_and_counted(tmp_path):
    make(tmp_path)
    (tmp_path / "7.png").write_bytes(b"<html>")
    (tmp_path / "8.png").write_bytes(b"")
    with pytest.raises(ImageError, match=r"2 files \(7\.png: .*8\.png: an empty file\)"):
        all_records(tmp_path)
    content = (tmp_path / "0.png").read_bytes()
    (tmp_path / "9.png").write_bytes(content[: len(content) // 2])  # its header is sound
    records = all_records(tmp_path, skip_bad=True)
    assert len(records) == 6 and [line.split(":")[0] for line in records.skipped] == [
        "7.png",
        "8.png",
        "9.png",
    ]
    splits = [
        all_records(tmp_path, split=split, skip_bad=True) for split in ("train", "validation")
    ]
    assert [len(each.skipped) for each in splits] == [3, 0]  # once in the tables of both


def test_a_bad_mask_is_skipped_with_its_image_only_on_request(tmp_path):
    make(tmp_path, 3)
    for name in ("0", "2", "sub/1"):
        Image.new("L", (22, 24) if name == "2" else (20 + int(name[-1]), 24)).save(
            tmp_path / f"{name}.mask.png"
        )
    assert len(all_records(tmp_path)) == 3
    Image.new("L", (9, 9)).save(tmp_path / "0.mask.png")
    (tmp_path / "2.mask.png").write_bytes(b"")
    with pytest.raises(ImageError, match=r"1 file \(2\.mask\.png: an empty file\)"):
        all_records(tmp_path)
    records = all_records(tmp_path, skip_bad=True)
    assert [r.source for r in records] == ["sub/1.jpg"]
    assert [line.split(":")[0] for line in records.skipped] == ["0.mask.png", "2.mask.png"]
    (tmp_path / "sub" / "1.mask.png").unlink()
    (tmp_path / "sub" / "1.mask.png").mkdir()
    with pytest.raises(
        DataError, match=r"no usable image.*3 files \(.*1\.mask\.png: not a regular file\) left out"
    ):
        all_records(tmp_path, skip_bad=True)


def test_a_configured_pixel_limit_is_enforced(tmp_path):
    with pytest.raises(ImageError, match=r"6 files.*20 x 24 is more than 400 pixels"):
        all_records(make(tmp_path), max_pixels=400)


def test_a_file_edited_after_listing_is_refused(tmp_path):
    records = all_records(make(tmp_path))
    Image.new("RGB", (20, 24), "red").save(tmp_path / "0.png")
    with pytest.raises(DataError, match="changed"):
        records[0]


def test_masks_are_fitted_like_their_images_and_given_for_all_or_none(tmp_path):
    make(tmp_path, 2)
    half = Image.new("L", (20, 24), 0)
    half.paste(255, (0, 0, 20, 12))
    half.save(tmp_path / "0.mask.png")
    with pytest.raises(DataError, match=r"sub/1\.jpg\) without a mask"):
        all_records(tmp_path)
    Image.new("L", (21, 24), 255).save(tmp_path / "sub" / "1.mask.png")
    records = all_records(tmp_path)
    assert len(records) == 2 and records[1].mask.min() == 1.0
    assert (
        records[0].mask.dtype == np.float32
        and records[0].mask[:7].min() == 1.0
        and records[0].mask[9:].max() == 0.0
    )
    Image.new("L", (9, 9), 255).save(tmp_path / "sub" / "1.mask.png")
    with pytest.raises(ImageError, match="mask"):
        all_records(tmp_path)[1]


def test_splits_are_disjoint_by_content(tmp_path):
    make(tmp_path, 40)
    for name in ("copy a", "copy b"):
        (tmp_path / f"{name}.png").write_bytes((tmp_path / "0.png").read_bytes())
        (tmp_path / f"{name}.txt").write_text(name)
    for fraction in (0.001, 0.3, 0.999):
        train = Folder(tmp_path, 16, validation_fraction=fraction)
        validation = Folder(tmp_path, 16, split="validation", validation_fraction=fraction)
        names = [{r.source for r in part} for part in (train, validation)]
        assert (
            len(train) + len(validation) == 42
            and not names[0] & names[1]
            and min(map(len, names)) >= 1
        )
        assert any({"0.png", "copy a.png", "copy b.png"} <= part for part in names)
    assert 5 <= len(Folder(tmp_path, 16, split="validation", validation_fraction=0.3)) <= 20
    with pytest.raises(DataError, match="no image is left"):
        Folder(make(tmp_path / "single", 1), 16, split="validation")
    assert len(Folder(tmp_path / "single", 16)) == 1


def test_the_fingerprint_depends_only_on_bytes_captions_and_size(tmp_path):
    records = all_records(make(tmp_path / "a"))
    same = records.fingerprint()
    for path in (tmp_path / "a").rglob("*"):
        os.utime(path, (1, 1))
    os.rename(tmp_path / "a", tmp_path / "b")
    root = tmp_path / "b"
    assert all_records(root).fingerprint() == same
    (root / "notes.md").write_text("not part of it")
    assert all_records(root).fingerprint() == same
    assert (
        all_records(root, size=17).fingerprint() != same
        and all_records(root, fit_mode="pad").fingerprint() != same
    )
    (root / "0.txt").write_text("caption 0 ")  # spaces at the ends do not count
    assert all_records(root).fingerprint() == same
    (root / "0.txt").write_text("caption zero")
    recaptioned = all_records(root).fingerprint()
    assert recaptioned != same
    Image.new("RGB", (20, 24), "red").save(root / "0.png")
    assert all_records(root).fingerprint() not in (same, recaptioned)
