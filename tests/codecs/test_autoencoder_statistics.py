"""Per-channel statistics and other numbers of an autoencoder's config are applied or refused."""

import json

import pytest
import torch

from tests import releases
from tinyflux_pl.codecs.autoencoder_flux2 import AutoencoderFlux2Codec
from tinyflux_pl.codecs.autoencoder_kl import AutoencoderKLCodec
from tinyflux_pl.core.errors import ConfigError

MEAN, DEVIATION = [-1.6, 1.9, -1.4, 2.5], [8.5, 5.9, 6.5, 5.2]


@pytest.fixture
def images():
    return torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(1)) * 2 - 1


def edit(folder, **changes):
    file = folder / "vae" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_latents_are_normalised_by_per_channel_mean_and_deviation(tmp_path, images):
    vae = releases.vae(tmp_path, latent_channels=4, scaling_factor=0.5)
    plain = AutoencoderKLCodec(str(tmp_path)).fingerprint()
    edit(tmp_path, latents_mean=MEAN, latents_std=DEVIATION)
    codec = AutoencoderKLCodec(str(tmp_path))
    mean, deviation = (torch.tensor(part).view(1, 4, 1, 1) for part in (MEAN, DEVIATION))
    with torch.no_grad():
        mode = vae.encode(images).latent_dist.mode()
        latents = (mode - mean) * 0.5 / deviation
        torch.testing.assert_close(codec.encode(images), latents, rtol=1e-5, atol=1e-6)
        # as diffusers' SDXL pipeline does
        image = vae.decode(latents * deviation / 0.5 + mean).sample
        torch.testing.assert_close(codec.decode(latents), image, rtol=1e-5, atol=1e-5)
    assert codec.fingerprint() != plain


@pytest.mark.parametrize(
    "change",
    [
        {"latents_mean": MEAN},
        {"latents_mean": MEAN, "latents_std": DEVIATION[:3]},
        {"latents_mean": MEAN, "latents_std": [0.0, *DEVIATION[1:]]},
        {"latents_mean": MEAN, "latents_std": "8.5"},
        {"latents_mean": MEAN, "latents_std": DEVIATION, "shift_factor": 0.1},
        {"scaling_factor": 0},
        {"scaling_factor": None},
    ],
)
def test_invalid_normalisation_constants_are_refused_before_weights_are_read(tmp_path, change):
    releases.vae(tmp_path, latent_channels=4)
    edit(tmp_path, **change)
    codec = AutoencoderKLCodec(str(tmp_path))
    with pytest.raises(ConfigError, match=r"latents_mean|scaling_factor"):
        _ = codec.latent_spec
    assert codec._model is None


def test_channel_statistics_are_refused_with_unshifted_scaling(tmp_path):
    releases.vae(tmp_path, latent_channels=4)
    edit(tmp_path, latents_mean=MEAN, latents_std=DEVIATION)
    with pytest.raises(ConfigError, match="scaling=unshifted"):
        _ = AutoencoderKLCodec(str(tmp_path), scaling="unshifted").latent_spec


def test_unread_keys_of_a_config_are_named(tmp_path, capsys):
    releases.vae(tmp_path, latent_channels=4)
    edit(tmp_path, of_tomorrow=1)
    AutoencoderKLCodec(str(tmp_path)).skeleton()
    assert "of_tomorrow" in capsys.readouterr().out


def test_flux2_adds_the_epsilon_of_its_config(tmp_path, images):
    from tests import releases_flux2

    releases_flux2.flux2_vae(tmp_path)
    pictures = torch.nn.functional.pad(images, (0, 8))
    usual = AutoencoderFlux2Codec(str(tmp_path)).encode(pictures)
    edit(tmp_path, batch_norm_eps=0.25)
    codec = AutoencoderFlux2Codec(str(tmp_path))
    encoded = codec.encode(pictures)
    variance = codec._loaded().bn.running_var[:, None, None]
    expected = usual * (variance + 1e-4).sqrt() / (variance + 0.25).sqrt()
    torch.testing.assert_close(encoded, expected, rtol=1e-4, atol=1e-5)
