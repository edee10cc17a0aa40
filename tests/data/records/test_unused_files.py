"""Unused files of an image folder are named, counted, and answered with a cure."""

import json

import pytest
from PIL import Image

from tinyflux_pl.core.errors import CaptionError, DataError
from tinyflux_pl.data.images import formats as image_formats
from tinyflux_pl.data.records.audit import audit
from tinyflux_pl.data.records.folder import Folder


def put(root, name, caption="a picture", colour="red"):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    suffix = path.suffix.lower()
    kind = {".jfif": "JPEG", ".jpe": "JPEG", ".apng": "PNG", ".dib": "BMP"}.get(suffix)
    Image.new("RGB", (20, 20), colour).save(path, format=kind)
    if caption is not None:
        path.with_suffix(".txt").write_text(caption)


def findings(root, **options):
    return {f.kind: set(f.names) for f in Folder(root, 8, split="all", **options).findings}


def test_every_documented_suffix_is_read(tmp_path):
    read = [
        s
        for name in ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "AVIF")
        for s in image_formats.BUILT_IN[name]
    ]
    for i, suffix in enumerate(read):
        put(tmp_path, f"{i}{suffix.upper() if i % 2 else suffix}")
    records = Folder(tmp_path, 8, split="all")
    records.check()
    assert (
        len(records) == len(read)
        and records.kinds == dict.fromkeys(read, 1)
        and not records.findings
    )


def test_each_kind_of_unused_file_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(image_formats, "suffixes", lambda: (".png", ".jpg"))
    put(tmp_path, "a.png")
    for name in ("b.heic", "c.JXL", "d.psd", "e.svg", "sub/f.CR2"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    for name in (
        "captions.csv",
        "x.parquet",
        "x.tar",
        "more.jsonl",
        "a.json",
    ):
        (tmp_path / name).write_text("x")
    for name in (
        "z.txt",
        "z.caption",
        "a.png.txt",
        "sub/a.txt",
        "A.txt",
        "film.mp4",
        "README",
        ".hidden.csv",
        "Thumbs.db",
        "sub/desktop.ini",
    ):
        (tmp_path / name).write_text("x")
    assert findings(tmp_path) == {
        "needs an extra": {"b.heic", "c.JXL"},
        "kind not read": {"d.psd", "e.svg", "sub/f.CR2"},
        "table not read": {
            "captions.csv",
            "x.parquet",
            "x.tar",
            "more.jsonl",
            "a.json",
        },
        "caption alone": {"z.txt", "z.caption", "a.png.txt", "sub/a.txt", "A.txt"},
        "not used": {"film.mp4", "README"},
    }
    for finding in Folder(tmp_path, 8, split="all").findings:
        assert finding.line().startswith(f"{len(finding.names)}: ") and "; do: " in finding.line()


def test_two_images_of_one_stem_are_named(tmp_path):
    for name in ("a.png", "a.jpg", "sub/a.png", "b.png"):
        put(tmp_path, name)
    assert findings(tmp_path) == {"one stem": {"a.jpg = a.png"}}


def test_a_text_file_that_contradicts_a_table_is_named(tmp_path):
    for name, text in (("a.png", "cat"), ("b.png", "dog"), ("c.png", None)):
        put(tmp_path, name, text)
    rows = [
        {"file_name": f"{n}.png", "text": t} for n, t in (("a", "cat"), ("b", "bird"), ("c", "x"))
    ]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "metadata.json").write_text("[]")
    assert findings(tmp_path) == {".txt not read": {"b.txt"}, "table not read": {"metadata.json"}}
    assert [r.caption for r in Folder(tmp_path, 8, split="all")] == ["cat", "bird", "x"]


def test_errors_for_missing_captions_or_images_list_unread_files(tmp_path):
    (tmp_path / "a.captions").write_text("cat")
    with pytest.raises(DataError, match="no usable image") as caught:
        Folder(tmp_path, 8, split="all")
    assert "a.captions" in caught.value.cure
    put(tmp_path, "a.png", None)
    with pytest.raises(CaptionError) as caught:
        Folder(tmp_path, 8, split="all")
    assert "table not read: 1: a.caption" in caught.value.cure


def test_empty_masks_are_counted_and_refused_if_all_are_empty(tmp_path):
    for name in ("a", "b", "c"):
        put(tmp_path, f"{name}.png")
        Image.new("L", (20, 20)).save(tmp_path / f"{name}.mask.png")
    records = Folder(tmp_path, 8, split="all")
    for _ in range(2):  # what decoded before is remembered, and that it marks nothing too
        with pytest.raises(DataError, match="in none of 3 masks anything is marked"):
            records.check()
    Image.new("L", (20, 20), 255).save(tmp_path / "b.mask.png")
    records = Folder(tmp_path, 8, split="all")
    records.check()
    findings = audit(records)
    assert (
        findings.empty_masks == ["a.png", "c.png"] and findings.masked == 3 and not findings.sound
    )


def test_the_error_for_a_single_image_names_the_split_setting(tmp_path):
    put(tmp_path, "a.png")
    with pytest.raises(DataError, match="'validation'") as caught:
        Folder(tmp_path, 8, split="validation")
    assert "data.sources.folder.validation.split=all" in caught.value.cure
