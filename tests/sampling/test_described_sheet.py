"""A sheet's PNG gives back each picture with its caption, and nothing that lies outside it."""

import json

import pytest
import torch
from PIL import Image, PngImagePlugin

from tinyflux_pl.sampling import described_sheet
from tinyflux_pl.sampling.grid import captioned_grid

CAPTIONS = ["a <b>red</b> circle", "каждый & любой", "third"]


def test_cells_of_a_sheet_are_read_back_unchanged(tmp_path):
    images = torch.stack([torch.full((3, 32, 32), value) for value in (-1.0, 0.0, 1.0)])
    described_sheet.save(captioned_grid(images, CAPTIONS), tmp_path / "sheet.png")
    sheet, cells = described_sheet.read(tmp_path / "sheet.png")
    assert [cell.caption for cell in cells] == CAPTIONS
    assert [cell.picture.size for cell in cells] == [(128, 128)] * 3
    assert [cell.picture.getpixel((64, 64))[0] for cell in cells] == [0, 128, 255]
    assert all(cell.picture.getextrema()[0][0] == cell.picture.getextrema()[0][1] for cell in cells)
    assert sheet.width > 3 * 128


@pytest.mark.parametrize(
    "description",
    [
        "no json",
        "[{}]",
        "7",
        "[" * 100_000,
        '[{"box": [0, 0, 5], "caption": ""}]',
        '[{"box": [0, 0, 9, 9], "caption": ""}]',
        '[{"box": [4, 0, 2, 4], "caption": ""}]',
    ],
)
def test_a_description_that_does_not_match_the_sheet_is_ignored(tmp_path, description):
    metadata = PngImagePlugin.PngInfo()
    metadata.add_itxt(described_sheet.KEY, description)
    Image.new("RGB", (8, 8)).save(tmp_path / "odd.png", pnginfo=metadata)
    sheet, cells = described_sheet.read(tmp_path / "odd.png")
    assert sheet.size == (8, 8) and cells == []


def test_a_file_that_is_no_png_is_refused(tmp_path):
    (tmp_path / "text.png").write_text(json.dumps({}))
    with pytest.raises(ValueError, match="not a PNG"):
        described_sheet.read(tmp_path / "text.png")
