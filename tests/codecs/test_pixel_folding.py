import pytest
import torch

from tinyflux_pl.codecs.pixel_folding import PixelFolding
from tinyflux_pl.codecs.registry import build_codec
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.specs import LatentSpec


@pytest.mark.parametrize("fold", [1, 2, 4])
def test_folding_is_invertible(fold):
    codec, images = PixelFolding(fold), torch.rand(2, 3, 8, 16) * 2 - 1
    latents = codec.encode(images)
    assert latents.shape == (2, 3 * fold * fold, 8 // fold, 16 // fold)
    assert codec.latent_spec == LatentSpec(3 * fold * fold, fold)
    torch.testing.assert_close(codec.decode(latents), images, rtol=0, atol=2e-7)


def test_a_latent_cell_contains_the_pixels_of_its_square():
    images = torch.zeros(1, 3, 4, 4)
    images[0, 1, 2, 3] = 1.0  # green, lower right cell, upper right pixel
    latents = PixelFolding(2).encode(images)
    ((_, channel, row, column),) = (latents > 0).nonzero().tolist()
    assert (channel, row, column) == (1 * 4 + 0 * 2 + 1, 1, 1)


def test_folded_synthetic_images_have_about_unit_variance():
    picture = torch.full((1, 3, 32, 32), 0.8)
    picture[:, :, 6:22, 6:22] = torch.tensor([0.6, -0.6, -0.6])[None, :, None, None]
    latents = PixelFolding(2).encode(picture)
    assert 0.5 < latents.square().mean().sqrt() < 1.5


def test_sizes_that_do_not_fold_are_refused():
    with pytest.raises(ConfigError, match="does not fold"):
        PixelFolding(4).encode(torch.zeros(1, 3, 8, 6))
    with pytest.raises(ConfigError, match="channels"):
        PixelFolding(2).decode(torch.zeros(1, 4, 4, 4))
    with pytest.raises(ConfigError):
        PixelFolding(0)


def test_the_codec_is_rebuilt_from_its_name_and_config():
    codec = PixelFolding(4)
    again = build_codec(codec.name, codec.config())
    assert again.fingerprint() == codec.fingerprint() != PixelFolding(2).fingerprint()
    with pytest.raises(ConfigError, match="pixels"):
        build_codec("pixel", {})
    with pytest.raises(ConfigError, match="folds"):
        build_codec("pixels", {"folds": 2})
