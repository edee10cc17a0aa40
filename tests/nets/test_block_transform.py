"""The linear transform of blocks: orthonormal, its own inverse where nothing is cut off."""

import torch

from tinyflux_pl.nets.fluxflow.block_transform import (
    BlockAnalysis,
    BlockSynthesis,
    lowest_cosines,
)
from tinyflux_pl.nets.fluxflow.compressor import FluxCompressor
from tinyflux_pl.nets.fluxflow.expander import FluxExpander


def test_the_cosines_are_orthonormal_and_start_with_each_colours_mean():
    basis = lowest_cosines(48, 4)
    assert torch.allclose(basis @ basis.T, torch.eye(48), atol=1e-5)
    assert torch.allclose(basis[:3].view(3, 3, 16).sum(-1), 4 * torch.eye(3), atol=1e-5)


def test_all_coefficients_give_the_picture_back():
    images = torch.rand(2, 3, 8, 12) * 2 - 1
    analysis, synthesis = BlockAnalysis(48, 4), BlockSynthesis(48, 4, gain=1.0)
    latents = analysis(images)
    assert latents.shape == (2, 48, 2, 3)
    assert torch.allclose(synthesis(latents), images, atol=1e-5)


def test_more_latents_than_pixels_are_allowed():
    images = torch.rand(1, 3, 2, 2)
    assert torch.allclose(
        BlockSynthesis(16, 2, 1.0)(BlockAnalysis(16, 2)(images)), images, atol=1e-5
    )


def test_a_new_autoencoder_distinguishes_colours():
    torch.manual_seed(0)
    encoder = FluxCompressor(latent_channels=12, widths=(6, 8), layers=1, heads=2)
    decoder = FluxExpander(latent_channels=12, widths=(8, 6), spade_hidden=8, rgb_width=8)
    colours = 0.6 * torch.eye(3).view(3, 3, 1, 1).expand(3, 3, 8, 8)
    with torch.no_grad():
        restored = decoder(encoder(colours)[0]).mean((2, 3))
    assert (restored.argmax(1) == torch.arange(3)).all()
    assert (restored.diagonal() - restored.min(1).values > 0.3).all()
