import pytest
import torch

from tinyflux_pl.codecs.pixel_folding import PixelFolding
from tinyflux_pl.denoisers.unet import build_unet
from tinyflux_pl.diffusion.paths import LinearPath, VPPath
from tinyflux_pl.experts.teacher import Teacher
from tinyflux_pl.text.hashed_words import HashedWords


def make_teacher(name):
    codec, text = PixelFolding(2), HashedWords(16, 6)
    path, prediction, scale = (
        (LinearPath(noise_at=1), "velocity", 1000.0) if name == "lune" else (VPPath(), "v", 999.0)
    )
    torch.manual_seed(0)
    denoiser = build_unet(
        codec.latent_spec,
        text.text_spec,
        path,
        prediction,
        block_out_channels=(8, 16),
        attention_levels=(True, True),
        attention_head_dim=2,
        norm_num_groups=4,
        time_scale=scale,
    )
    return Teacher(denoiser, codec, text, name, weights="0" * 64)


@pytest.fixture
def lune_teacher():
    return make_teacher("lune")


@pytest.fixture
def sol_teacher():
    return make_teacher("sol")


@pytest.fixture
def samples():
    """Latents, text and identities of four images."""
    latents = torch.randn(4, 12, 8, 8, generator=torch.Generator().manual_seed(3))
    text = HashedWords(16, 6).encode(["a red circle", "blue", "", "two green squares"])
    return latents, text, [11, 22, 33, 44]
