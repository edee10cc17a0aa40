"""Tiles: without a network's global parts they change nothing, and no seam stands out with them."""

import pytest
import torch

from tests import releases
from tinyflux_pl.codecs import norm_statistics, tiles
from tinyflux_pl.codecs.autoencoder_kl import AutoencoderKLCodec
from tinyflux_pl.core.errors import ConfigError


@pytest.mark.parametrize("height, width", [(8, 8), (20, 33), (64, 9)])
def test_tiling_does_not_change_a_pointwise_function(height, width):
    x = torch.randn(1, 3, height, width, dtype=torch.float64)
    run = lambda part: torch.nn.functional.interpolate(part.tanh(), scale_factor=4)  # noqa: E731
    torch.testing.assert_close(tiles.tiled(run, x, 8, 1, 4.0), run(x))


def test_tiling_changes_a_convolution_only_at_tile_edges():
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(3, 4, 3, padding=1).double()
    x = torch.randn(1, 3, 48, 48, dtype=torch.float64)
    with torch.no_grad():
        difference = (tiles.tiled(layer, x, 16, 1, 1.0) - layer(x)).abs()
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


def test_tiled_encoding_and_decoding_show_no_seams(codecs):
    """Convolutions end at a tile, so values differ near its edges; no edge may show it."""
    generator = torch.Generator().manual_seed(0)
    smooth = torch.randn(4, 3, 6, 8, generator=generator)
    images = torch.nn.functional.interpolate(smooth, (192, 256), mode="bicubic").clamp(-1, 1)
    plain, tiled = (codecs[tile].encode(images) for tile in (None, 128))
    assert plain.shape == tiled.shape == (4, 16, 24, 32)
    decoded, in_tiles = (codecs[tile].decode(plain) for tile in (None, 128))
    assert in_tiles.shape == images.shape and not torch.equal(decoded, in_tiles)
    edges = [79, 95, 96, 175]  # where a tile begins or ends
    assert roughness(in_tiles, edges) < 1.3 * roughness(decoded, edges)
    cells = [9, 11, 12, 21]
    assert roughness(tiled, cells) < 1.3 * roughness(plain, cells)


def decibels(picture, plain):
    error = (picture - plain).square().mean() / (plain - plain.mean()).square().mean()
    return float(-10 * error.log10())


def photograph(name):
    """256 x 256 pixels of one of scikit-image's photographs."""
    from skimage import data

    pixels = torch.from_numpy(getattr(data, name)()).permute(2, 0, 1)[None].float() / 127.5 - 1
    return torch.nn.functional.interpolate(pixels, (256, 256), mode="area")


@pytest.mark.parametrize("name", ["astronaut", "coffee"])
@torch.no_grad()
def test_tiles_are_nearer_to_the_plain_result_than_those_of_diffusers(codecs, tmp_path, name):
    """The same random weights and size of tiles; at least 3 dB, of latents and of pixels."""
    from diffusers import AutoencoderKL

    releases.flux1_vae(tmp_path)
    expected = AutoencoderKL.from_pretrained(tmp_path / "vae", low_cpu_mem_usage=False)
    expected.enable_tiling()
    expected.tile_sample_min_size, expected.tile_latent_min_size = 128, 16
    images = photograph(name)
    plain, tiled = codecs[None].encode(images), codecs[128].encode(images)
    scale, shift = expected.config.scaling_factor, expected.config.shift_factor
    other = (expected.encode(images).latent_dist.mean - shift) * scale
    assert decibels(tiled, plain) > decibels(other, plain) + 3
    z = plain / plain.std()
    plain, tiled = codecs[None].decode(z), codecs[128].decode(z)
    other = expected.decode(z / scale + shift).sample
    assert decibels(tiled, plain) > decibels(other, plain) + 3


@torch.no_grad()
def test_norms_with_the_statistics_of_all_of_it_equal_the_norm_of_all_of_it():
    torch.manual_seed(0)
    norm = torch.nn.GroupNorm(4, 8)
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(1, 8, 12, 10) * 3 + 1
    statistics = norm_statistics.measured(norm, lambda: norm(x))
    with norm_statistics.applied(statistics):
        parts = torch.cat([norm(x[:, :, :5]), norm(x[:, :, 5:])], 2)
    torch.testing.assert_close(parts, norm(x))
    assert not torch.allclose(norm(x[:, :, :5]), parts[:, :, :5], atol=1e-2)


def test_an_image_no_larger_than_a_tile_is_not_tiled(codecs):
    latents = torch.randn(2, 16, 8, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(codecs[128].decode(latents), codecs[None].decode(latents))


def test_the_tile_size_enters_the_latents_fingerprint(codecs):
    assert codecs[128].fingerprint() == {
        **codecs[None].fingerprint(),
        "tile": 128,
        "tiled": "fine levels",
    }
    assert "tile" not in codecs[None].config()


@pytest.mark.parametrize("tile", [0, 64, 100])
def test_a_tile_size_that_is_no_multiple_of_a_cell_is_refused(tile):
    with pytest.raises(ConfigError, match="multiple of 64"):
        AutoencoderKLCodec("folder", tile=tile)
