"""An image that decoded completely once is not decoded again at every start."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tinyflux_pl.core import files, regular_file
from tinyflux_pl.core.errors import ImageError
from tinyflux_pl.data.images.decode_log import ValidatedImages
from tinyflux_pl.data.records import listing as room
from tinyflux_pl.data.records.folder import Folder
from tinyflux_pl.data.records.listings import shared


def draw(file, seed):
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(
        file
    )
    file.with_suffix(".txt").write_text(f"picture {seed}")


@pytest.fixture
def pictures(tmp_path):
    (tmp_path / "pictures").mkdir()
    for i in range(6):
        draw(tmp_path / "pictures" / f"{i}.png", i)
    return tmp_path / "pictures"


@pytest.fixture
def decoded(monkeypatch):
    """The files that are decoded."""
    names, real = [], room.decode

    def spied(content, *, max_pixels, name):
        names.append(name.rsplit("/", 1)[-1])
        return real(content, max_pixels=max_pixels, name=name)

    monkeypatch.setattr(room, "decode", spied)
    return names


def start(pictures, decoded, **how):
    """A new start on the folder; the files it decodes."""
    decoded.clear()
    memory = str(pictures.parent / "cache" / "decoded.bin")
    records = Folder(pictures, size=16, split="all", skip_bad=True, decoded=memory, **how)
    return records, sorted(decoded)


def test_only_new_and_changed_images_are_decoded_at_a_start(pictures, decoded):
    assert start(pictures, decoded)[1] == [f"{i}.png" for i in range(6)]
    records, read = start(pictures, decoded)
    assert read == [] and len(records) == 6 and not records.skipped
    draw(pictures / "2.png", 20)
    draw(pictures / "7.png", 7)
    (pictures / "3.png").rename(pictures / "9.png")  # the same bytes under another name
    (pictures / "3.txt").rename(pictures / "9.txt")
    assert start(pictures, decoded)[1] == ["2.png", "7.png"]


def test_a_bad_image_is_decoded_and_listed_at_every_start(pictures, decoded):
    original = (pictures / "4.png").read_bytes()
    (pictures / "4.png").write_bytes(original[: len(original) // 2])
    for _ in range(2):
        records, read = start(pictures, decoded)
        assert "4.png" in read and len(records) == 5 and len(records.skipped) == 1
    (pictures / "4.png").write_bytes(original)
    assert start(pictures, decoded)[1] == ["4.png"]


def test_another_limit_or_a_damaged_log_causes_decoding_again(pictures, decoded):
    start(pictures, decoded)
    assert len(start(pictures, decoded, max_pixels=10_000)[1]) == 6
    file = pictures.parent / "cache" / "decoded.bin"
    for content in (
        file.read_bytes()[:-1],
        bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:],
        b"",
    ):
        file.write_bytes(content)
        assert len(start(pictures, decoded)[1]) == 6
        assert start(pictures, decoded)[1] == []


def test_the_check_before_extraction_uses_the_decode_log(pictures, decoded):
    memory = str(pictures.parent / "decoded.bin")
    for expected in (6, 0):
        decoded.clear()
        Folder(pictures, size=16, split="all", decoded=memory).check()
        assert len(decoded) == expected
    original = (pictures / "4.png").read_bytes()
    (pictures / "4.png").write_bytes(original[: len(original) // 2])
    with pytest.raises(ImageError, match=r"4\.png"):
        Folder(pictures, size=16, split="all", decoded=memory).check()


def test_two_processes_may_write_one_decode_log(tmp_path):
    """A process that finds the log being written skips it and decodes again next time."""
    from tinyflux_pl.core.file_lock import locked

    first, second = (ValidatedImages(tmp_path / "decoded.bin", 100) for _ in range(2))
    first.add("a", "")
    second.add("b", "")
    with locked(tmp_path, ".decoded.bin.lock"):
        second.save()
    assert not (tmp_path / "decoded.bin").exists()
    first.save()
    again = ValidatedImages(tmp_path / "decoded.bin", 100)
    assert again.holds("a", "") and not again.holds("b", "")


def test_entries_with_another_limit_of_a_costly_format_are_ignored(tmp_path, monkeypatch):
    from tinyflux_pl.data.images import decode_log

    log = ValidatedImages(tmp_path / "decoded.bin", 100)
    log.add("a", "")
    log.save()
    costly = {**decode_log.COSTLY, "a TIFF that is turned": 3}
    monkeypatch.setattr(decode_log, "COSTLY", costly)
    assert not ValidatedImages(tmp_path / "decoded.bin", 100).holds("a", "")


def test_another_decoder_version_decodes_every_image_again(pictures, decoded, monkeypatch):
    """An image that an earlier version decoded may fail in this one."""
    from tinyflux_pl.data.images import decode_log

    start(pictures, decoded)
    assert start(pictures, decoded)[1] == []
    monkeypatch.setattr(decode_log, "DECODING_VERSION", decode_log.DECODING_VERSION + 1)
    assert len(start(pictures, decoded)[1]) == 6
    monkeypatch.setattr(decode_log.PIL, "__version__", "0.0")
    assert len(start(pictures, decoded)[1]) == 6


def test_an_unusable_decode_log_only_costs_time(pictures, decoded, monkeypatch):
    def refused(*_):
        raise PermissionError(13, "Permission denied")

    for target in ("write_bytes", "read_bytes"):
        owner = files if target == "write_bytes" else Path
        with monkeypatch.context() as closed:
            closed.setattr(owner, target, refused)
            assert len(start(pictures, decoded)[1]) == 6
    (pictures.parent / "cache").rename(pictures.parent / "was")
    (pictures.parent / "cache").write_text("a file in the folder's place")
    assert len(start(pictures, decoded)[1]) == 6


@pytest.fixture
def opened(monkeypatch):
    """The files that are opened to be read."""
    names, real = [], regular_file.os.open

    def spied(path, *flags):
        names.append(str(path).rsplit("/", 1)[-1])
        return real(path, *flags)

    monkeypatch.setattr(regular_file.os, "open", spied)
    return names


def test_a_start_on_a_known_folder_opens_every_file_once(pictures, opened, monkeypatch):
    """For both splits together; headers that are known are not judged again."""
    memory = str(pictures.parent / "cache" / "decoded.bin")

    def both():
        with shared():
            splits = [
                Folder(pictures, 16, split=s, decoded=memory) for s in ("train", "validation")
            ]
        return {record for records in splits for record, _ in records.captions()}

    names = {f"{i}.{suffix}" for i in range(6) for suffix in ("png", "txt")}
    assert both() == {f"{i}.png" for i in range(6)}
    opened.clear()
    monkeypatch.setattr(room, "inspect", lambda *a, **k: pytest.fail("a header was judged again"))
    both()
    assert sorted(n for n in opened if n in names) == sorted(names)


def test_a_folder_listing_is_shared_only_within_its_context(pictures):
    def count():
        return len(Folder(pictures, 16, split="all"))

    with shared():
        assert count() == 6
        draw(pictures / "8.png", 8)
        assert count() == 6
    assert count() == 7
