"""A picture to begin from: its mask on the latents' cells, and what is given out."""

import numpy as np
import pytest
import torch
from PIL import Image

from tinyflux_pl.codecs.pixel_folding import PixelFolding
from tinyflux_pl.inference.start import Start


@pytest.fixture
def start(tmp_path):
    """8 x 8 pixels in cells of 2 x 2: one is drawn anew, one mixes, all others are kept."""
    pixels = np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8)
    mask = np.zeros((8, 8), np.uint8)
    mask[3, 5], mask[6, 0] = 255, 51
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    files = (tmp_path / "photo.png", tmp_path / "mask.png")
    return Start(PixelFolding(2), *files, None, cell=2, size=None, side=8)


def test_a_cell_is_as_free_as_its_freest_pixel(start):
    expected = torch.zeros(4, 4)
    expected[1, 2], expected[3, 0] = 1, 0.2
    torch.testing.assert_close(start.initial().mask[0, 0], expected)


def test_black_is_pasted_back_exactly(start):
    drawn = torch.full((1, 3, 8, 8), torch.nan)
    drawn[..., 3, 5] = drawn[..., 6, 0] = 0.5
    finished = start.finish(drawn)
    kept = torch.ones(8, 8, dtype=torch.bool)
    kept[3, 5] = kept[6, 0] = False
    assert torch.equal(finished[..., kept], start.image[..., kept])
    assert (finished[..., 3, 5] == 0.5).all()
    mixed = 0.8 * start.image[..., 6, 0] + 0.2 * 0.5
    torch.testing.assert_close(finished[..., 6, 0], mixed)
