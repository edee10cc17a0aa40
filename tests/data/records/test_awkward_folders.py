"""Real folders: linked, renamed, half readable, edited meanwhile; nothing is dropped silently."""

import json
import os
import signal

import pytest
from PIL import Image

from tinyflux_pl.core import interruption
from tinyflux_pl.core.errors import CaptionError, DataError, ImageError, Interrupted, TinyFluxError
from tinyflux_pl.data.records.audit import audit
from tinyflux_pl.data.records.dataset_files import MAX_CAPTION_BYTES
from tinyflux_pl.data.records.folder import Folder
from tinyflux_pl.data.records.image_pairs import PairedImages


def put(path, colour="red", caption=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 20), colour).save(path)
    if caption is not None:
        path.with_suffix(".txt").write_text(caption)


def write_table(root, *rows, file="metadata.jsonl"):
    (root / file).write_text("\n".join(json.dumps(row) for row in rows))


def captions(root, **options):
    return {r.source: r.caption for r in Folder(root, 8, split="all", **options)}


# what a table of captions says


def test_an_image_and_a_link_to_it_keep_separate_captions(tmp_path):
    put(tmp_path / "all" / "a.png")
    (tmp_path / "b.png").symlink_to("all/a.png")
    (tmp_path / "linked").symlink_to("all")
    put(tmp_path / "all" / "c.png", "blue")
    rows = [("all/a.png", "cat"), ("./b.png", "dog"), ("linked/c.png", "bird")]
    write_table(tmp_path, *({"file_name": name, "text": text} for name, text in rows))
    assert captions(tmp_path) == {"all/a.png": "cat", "b.png": "dog", "all/c.png": "bird"}


@pytest.mark.parametrize("again", ["a.png", "./a.png", "sub/../a.png"])
def test_two_captions_of_one_image_are_refused_in_any_spelling(tmp_path, again):
    put(tmp_path / "a.png")
    (tmp_path / "sub").mkdir()
    write_table(
        tmp_path, {"file_name": "a.png", "text": "cat"}, {"file_name": again, "text": "dog"}
    )
    with pytest.raises(CaptionError, match=r"a\.png has two captions"):
        captions(tmp_path)


def test_a_mapping_may_not_name_a_file_twice(tmp_path):
    put(tmp_path / "a.png")
    (tmp_path / "metadata.json").write_text('{"a.png": "cat", "a.png": "dog"}')
    with pytest.raises(CaptionError, match=r"'a\.png' occurs twice"):
        captions(tmp_path)


@pytest.mark.parametrize("name", ["b.ico", ".hidden/c.png", "a.mask.png"])
def test_a_row_for_a_file_that_is_no_image_is_refused(tmp_path, name):
    put(tmp_path / "a.png")
    put(tmp_path / name)
    write_table(tmp_path, {"file_name": "a.png", "text": "cat"}, {"file_name": name, "text": "dog"})
    with pytest.raises(ImageError, match=r"1 file \(.*is not read as an image"):
        captions(tmp_path)
    records = Folder(tmp_path, 8, split="all", skip_bad=True)
    assert [r.caption for r in records] == ["cat"] and records.skipped[0].startswith(f"{name}: ")


@pytest.mark.parametrize(
    ("name", "row", "file_name"),
    [("e\u0301.png", "\xe9.png", r"'e\u0301.png'"), ("A.PNG", "a.png", "'A.PNG'")],
)
def test_a_row_with_another_unicode_spelling_is_refused_with_the_file_name(
    tmp_path, name, row, file_name
):
    """As a set that was packed on another system: on a screen the two may look alike."""
    put(tmp_path / name)
    write_table(tmp_path, {"file_name": row, "text": "cat"})
    with pytest.raises(DataError, match="which is not there") as caught:
        captions(tmp_path)
    assert f"the folder calls it {file_name}" in caught.value.cure


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("nowhere", path)])
def test_a_table_that_is_no_regular_file_is_refused(tmp_path, make):
    put(tmp_path / "a.png", caption="another caption")
    make(tmp_path / "metadata.jsonl")
    with pytest.raises(CaptionError, match="not a regular file"):
        captions(tmp_path)


def test_a_missing_named_table_is_refused(tmp_path):
    put(tmp_path / "a.png")
    with pytest.raises(CaptionError, match="no such file of captions") as caught:
        captions(tmp_path, caption_file="metadata.jsonl")
    assert "data.caption_file" in caught.value.cure


def test_captions_in_tables_and_text_files_have_one_size_limit(tmp_path):
    put(tmp_path / "a.png")
    write_table(tmp_path, {"file_name": "a.png", "text": "x" * MAX_CAPTION_BYTES})
    assert len(captions(tmp_path)["a.png"]) == MAX_CAPTION_BYTES
    write_table(tmp_path, {"file_name": "a.png", "text": "x" * (MAX_CAPTION_BYTES + 1)})
    with pytest.raises(CaptionError, match=r"1,048,577 bytes of captions, more than 1,048,576"):
        captions(tmp_path)


# what a folder holds


@pytest.mark.parametrize("name", ["a.jpg.mask.png", "a.MASK.PNG", "other.mask.png"])
def test_a_mask_without_image_is_refused(tmp_path, name):
    put(tmp_path / "a.jpg", caption="cat")
    Image.new("L", (20, 20)).save(tmp_path / name)
    with pytest.raises(DataError, match=rf"1 file \({name}\).*no image") as caught:
        captions(tmp_path)
    assert "NAME.mask.png" in caught.value.cure


@pytest.mark.parametrize("which", ["sub", "."])
def test_an_unreadable_folder_is_refused(tmp_path, monkeypatch, which):
    put(tmp_path / "a.png", caption="cat")
    put(tmp_path / "sub" / "b.png", caption="dog")
    usual, closed = os.scandir, tmp_path / which

    def scandir(path="."):
        if os.path.realpath(path) == str(closed.resolve()):
            raise PermissionError(13, "Permission denied", str(path))
        return usual(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(DataError, match="cannot be read: Permission denied") as caught:
        captions(tmp_path)
    assert caught.value.where == str(tmp_path / which) and caught.value.cure


# what changes while it is read


def swapped(path, kind):
    path.unlink()
    if kind == "edited":
        put(path, "green")
    elif kind == "a pipe":
        os.mkfifo(path)


@pytest.mark.parametrize("kind", ["edited", "gone", "a pipe"])
def test_an_image_changed_after_listing_is_refused_by_name(tmp_path, kind):
    put(tmp_path / "a.png", caption="cat")
    records = Folder(tmp_path, 8, split="all")
    swapped(tmp_path / "a.png", kind)
    for read in (lambda: records[0], records.check):
        with pytest.raises(DataError, match=r"changed|No such file|not a regular file") as caught:
            read()
        assert "a.png" in str(caught.value)


@pytest.mark.parametrize("which", ["a_target.png", "a_ref.png", "a_mask.png"])
def test_a_pair_changed_after_listing_is_refused_by_name(tmp_path, which):
    for name in ("a_target.png", "a_ref.png", "a_mask.png"):
        put(tmp_path / name)
    (tmp_path / "a_caption.txt").write_text("cat")
    records = PairedImages(tmp_path, 8, split="all")
    swapped(tmp_path / which, "edited")
    with pytest.raises(DataError, match="changed") as caught:
        records[0]
    assert caught.value.where.endswith(which)


def test_a_pair_caption_that_is_no_text_is_refused_by_line(tmp_path):
    put(tmp_path / "a.png")
    row = json.dumps({"target": "a.png", "reference": "a.png", "caption": "\ud800"})
    (tmp_path / "metadata.jsonl").write_text(f"\n\n{row}")
    with pytest.raises(CaptionError, match="not text") as caught:
        PairedImages(tmp_path, 8, split="all")
    assert "line 3" in caught.value.where


def test_a_cure_names_only_keys_of_the_dataset_class(tmp_path):
    put(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    write_table(tmp_path, {"target": "a.png", "reference": "b.png", "caption": "x"})
    with pytest.raises(TinyFluxError) as caught:
        PairedImages(tmp_path, 8, split="all").check()
    assert "skip_bad" not in caught.value.cure, "pairs have no such key"


# how long it takes


def test_a_stop_request_takes_effect_between_two_images(tmp_path):
    for name in ("a_target.png", "a_ref.png"):
        put(tmp_path / name, caption="cat")
    (tmp_path / "a_caption.txt").write_text("cat")
    folder, pairs = Folder(tmp_path, 8, split="all"), PairedImages(tmp_path, 8, split="all")
    readers = (
        lambda: Folder(tmp_path, 8, split="all"),
        lambda: PairedImages(tmp_path, 8, split="all"),
        folder.check,
        pairs.check,
        lambda: audit(folder),
    )
    for read in readers:
        read()
        with interruption.listening():
            interruption.request_stop(signal.SIGTERM)
            with pytest.raises(Interrupted):
                read()
