"""A start opens only the files that are new or changed since the last one."""

import os
import time

import numpy as np
import pytest
from PIL import Image

from tinyflux_pl.core import regular_file
from tinyflux_pl.data.images import decode
from tinyflux_pl.data.records import caption_text, file_index
from tinyflux_pl.data.records.file_index import FileIndex, identity
from tinyflux_pl.data.records.folder import Folder

COUNT = 4


@pytest.fixture
def opened(monkeypatch):
    """The files that are opened; changes count as settled at once."""
    names = []

    def spied(path, most):
        names.append(os.path.basename(path))
        return regular_file.read_regular(path, most)

    monkeypatch.setattr(decode, "read_regular", spied)
    monkeypatch.setattr(caption_text, "read_regular", spied)
    monkeypatch.setattr(file_index, "RECENT_NS", 0)
    return names


def draw(file, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, compress_level=0)  # every picture has the same size in bytes
    file.with_suffix(".txt").write_text(f"picture {seed}")


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(COUNT):
        draw(folder / f"{i}.png", i)
    time.sleep(0.02)
    return folder


def start(pictures, opened, **options):
    """Fingerprint and captions of a new start, and the files that it opened."""
    opened.clear()
    log = str(pictures.parent / "cache" / "decoded.bin")
    records = Folder(pictures, size=16, split="all", decoded=log, **options)
    return records.fingerprint(), records.captions(), sorted(opened)


def test_an_unchanged_folder_is_not_opened_again_and_is_the_same(pictures, opened):
    first = start(pictures, opened)
    assert len(first[2]) == 2 * COUNT
    assert start(pictures, opened) == (*first[:2], [])


def test_a_file_of_the_same_size_and_time_with_another_content_is_read(pictures, opened):
    first = start(pictures, opened)
    for name, other in (("2.png", "9.png"), ("1.txt", None)):
        file, status = pictures / name, os.stat(pictures / name)
        if other:
            draw(pictures.parent / other, 9)
        content = (pictures.parent / other).read_bytes() if other else b"picture 7"
        assert len(content) == status.st_size
        file.write_bytes(content)
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    fingerprint, captions, read = start(pictures, opened)
    assert read == ["1.txt", "2.png"]
    assert captions[1][1] == "picture 7" and fingerprint["content"] != first[0]["content"]


def test_sizes_are_read_where_an_earlier_start_had_no_use_for_them(pictures, opened):
    start(pictures, opened)
    (pictures.parent / "cache" / "decoded.files.json").unlink()
    start(pictures, opened)  # the headers are known to be fine: nothing asks for the sizes
    buckets = {"enabled": True, "step": 8}
    read = start(pictures, opened, buckets=buckets)[2]
    assert read == [f"{i}.png" for i in range(COUNT)]
    assert start(pictures, opened, buckets=buckets)[2] == []


@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda content: b"{}"])
def test_a_damaged_index_counts_as_empty(pictures, opened, damage):
    first = start(pictures, opened)
    index = pictures.parent / "cache" / "decoded.files.json"
    index.write_bytes(damage(index.read_bytes()))
    assert start(pictures, opened) == first
    assert start(pictures, opened)[2] == []


def test_an_index_of_another_folder_or_reader_counts_as_empty(tmp_path):
    file, there = tmp_path / "index", (1, 2, 3, 4)
    index = FileIndex(file, tmp_path, ["reader", 1])
    index.add("a", there, "text")
    index.save()
    assert FileIndex(file, tmp_path, ["reader", 1]).value("a", there) == "text"
    assert FileIndex(file, tmp_path, ["reader", 1]).value("a", (1, 2, 3, 5)) is None
    assert FileIndex(file, tmp_path, ["reader", 2]).value("a", there) is None
    assert FileIndex(file, tmp_path / "b", ["reader", 1]).value("a", there) is None


def test_a_file_that_has_just_changed_is_not_indexed(tmp_path):
    (tmp_path / "a").write_text("now")
    index = FileIndex(None, tmp_path, [])
    index.add("a", identity(str(tmp_path / "a")), "now")
    assert index.value("a", identity(str(tmp_path / "a"))) is None


def test_a_link_has_no_identity(tmp_path):
    (tmp_path / "a").write_text("text")
    (tmp_path / "b").symlink_to("a")
    assert identity(str(tmp_path / "b")) is None and identity(str(tmp_path / "c")) is None
