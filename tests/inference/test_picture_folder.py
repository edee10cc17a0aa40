"""Image names: numbers continue, and no file is ever replaced, even by concurrent writers."""

import errno
import os

import pytest
from PIL import Image

from tinyflux_pl.inference.picture_folder import PictureFolder

PICTURE = Image.new("RGB", (4, 4))


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def test_image_numbers_continue_after_existing_files(tmp_path):
    first = PictureFolder(tmp_path)
    assert [first.add(PICTURE, {}).name for _ in range(2)] == ["image_0000.png", "image_0001.png"]
    assert first.add_grid(PICTURE, {}).name == "grid.png"
    later = PictureFolder(tmp_path)
    assert (
        later.add(PICTURE, {}).name == "image_0002.png"
        and later.add_grid(PICTURE, {}).name == "grid_0002.png"
    )


@pytest.mark.parametrize("links", [True, False], ids=["links", "a file system without links"])
def test_two_writers_of_one_folder_keep_all_images(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", refuse)
    # both have looked before either writes
    one, other = PictureFolder(tmp_path), PictureFolder(tmp_path)
    written = [
        writer.add(PICTURE, {"by": i}) for _ in range(3) for i, writer in enumerate((one, other))
    ]
    grids = [one.add_grid(PICTURE, {}), other.add_grid(PICTURE, {})]
    assert len({*written, *grids}) == 8 and names(tmp_path) == sorted(
        path.name for path in (*written, *grids)
    )
    assert [Image.open(path).text["tinyflux_pl"] for path in written] == [
        '{"by": 0}',
        '{"by": 1}',
    ] * 3


def test_a_foreign_grid_file_is_not_overwritten(tmp_path):
    (tmp_path / "grid.png").write_bytes(b"mine")
    folder = PictureFolder(tmp_path)
    folder.add(PICTURE, {})
    assert folder.add_grid(PICTURE, {}).name == "grid_0001.png"
    assert (tmp_path / "grid.png").read_bytes() == b"mine"


def refuse(*_):
    raise OSError(errno.EPERM, "no links here")
