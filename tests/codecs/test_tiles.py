"""Tiles: without a network's global parts they change nothing, and no seam stands out with them."""

import pytest
import torch

from tests import releases
from tinyflux_pl.codecs import tiles
from tinyflux_pl.codecs.autoencoder_kl import AutoencoderKLCodec
from tinyflux_pl.core.errors import ConfigError


@pytest.mark.parametrize("height, width", [(8, 8), (20, 33), (64, 9)])
def test_a_pointwise_function_is_the_same_in_tiles(height, width):
    x = torch.randn(2, 3, height, width, dtype=torch.float64)
    run = lambda part: torch.nn.functional.interpolate(part.tanh(), scale_factor=4)  # noqa: E731
    torch.testing.assert_close(tiles.in_turn(run, x, 8, 4.0, height * width), run(x))


def test_a_convolution_is_the_same_but_for_the_edges_of_tiles():
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(3, 4, 3, padding=1).double()
    x = torch.randn(1, 3, 48, 48, dtype=torch.float64)
    with torch.no_grad():
        difference = (tiles.in_turn(layer, x, 16, 1.0, 48**2) - layer(x)).abs()
    # a tile's outermost row sees zeros, and counts an eighth at most
    assert difference.max() < 0.2 * layer(x).abs().max()
    assert (difference > 1e-9).double().mean() < 0.35


@pytest.fixture(scope="module")
def codecs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vae")
    releases.flux1_vae(folder)
    return {tile: AutoencoderKLCodec(str(folder), tile=tile) for tile in (None, 128)}


def roughness(images, columns):
    """The mean step from one column to the next, at these columns over all."""
    steps = images.diff(dim=-1).abs().mean((0, 1, 2))
    return float(steps[columns].mean() / steps.mean())


def test_both_ways_show_no_seam(codecs):
    """An autoencoder's group norms see a tile alone, so levels differ; no edge may show it."""
    generator = torch.Generator().manual_seed(0)
    smooth = torch.randn(4, 3, 6, 8, generator=generator)
    images = torch.nn.functional.interpolate(smooth, (192, 256), mode="bicubic").clamp(-1, 1)
    plain, tiled = (codecs[tile].encode(images) for tile in (None, 128))
    assert plain.shape == tiled.shape == (4, 16, 24, 32)
    decoded, in_tiles = (codecs[tile].decode(plain) for tile in (None, 128))
    assert in_tiles.shape == images.shape and not torch.equal(decoded, in_tiles)
    edges = [95, 127, 128, 223]  # where a tile begins or ends
    assert roughness(in_tiles, edges) < 1.3 * roughness(decoded, edges)
    cells = [11, 15, 16, 27]
    assert roughness(tiled, cells) < 1.3 * roughness(plain, cells)


def test_a_picture_no_larger_than_a_tile_is_the_plain_one(codecs):
    latents = torch.randn(2, 16, 8, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(codecs[128].decode(latents), codecs[None].decode(latents))


def test_the_tile_decides_the_latents_fingerprint(codecs):
    assert codecs[128].fingerprint() == {**codecs[None].fingerprint(), "tile": 128}
    assert "tile" not in codecs[None].config()


@pytest.mark.parametrize("tile", [0, 64, 100])
def test_a_tile_without_whole_cells_is_refused(tile):
    with pytest.raises(ConfigError, match="multiple of 64"):
        AutoencoderKLCodec("folder", tile=tile)
