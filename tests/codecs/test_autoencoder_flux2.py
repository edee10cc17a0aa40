"""FLUX.2's codec equals what diffusers' pipeline does around the same autoencoder."""

from types import SimpleNamespace

import pytest
import torch

from tests import releases_flux2 as releases
from tinyflux_pl.codecs.autoencoder_flux2 import AutoencoderFlux2Codec
from tinyflux_pl.codecs.registry import build_codec
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.specs import LatentSpec


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flux2")
    return folder, releases.flux2_vae(folder)


def test_latents_equal_the_pipelines(vae):
    from diffusers import Flux2KleinPipeline

    folder, model = vae
    codec, images = AutoencoderFlux2Codec(str(folder)), torch.rand(2, 3, 32, 48) * 2 - 1
    latents = codec.encode(images)
    stand_in = SimpleNamespace(vae=model, _patchify_latents=Flux2KleinPipeline._patchify_latents)
    with torch.no_grad():
        expected = Flux2KleinPipeline._encode_vae_image(stand_in, images, torch.Generator())
    torch.testing.assert_close(latents, expected, atol=1e-5, rtol=1e-5)
    assert codec.latent_spec == LatentSpec(channels=16, downsample=16) and latents.shape == (
        2,
        16,
        2,
        3,
    )
    mean, std = (
        model.bn.running_mean.view(1, -1, 1, 1),
        (model.bn.running_var + model.bn.eps).sqrt().view(1, -1, 1, 1),
    )
    with torch.no_grad():
        drawn = model.decode(Flux2KleinPipeline._unpatchify_latents(latents * std + mean)).sample
    torch.testing.assert_close(codec.decode(latents), drawn, atol=1e-5, rtol=1e-5)


def test_the_deviation_is_divided_by_that_of_the_statistics(vae):
    folder, model = vae
    images = torch.rand(2, 3, 32, 48) * 2 - 1
    codec = AutoencoderFlux2Codec(str(folder), posterior="sampled")
    mean, deviation = codec.encode_moments(images)
    with torch.no_grad():
        spread = torch.nn.functional.pixel_unshuffle(model.encode(images).latent_dist.std, 2)
    expected = spread / (model.bn.running_var.view(1, -1, 1, 1) + model.bn.eps).sqrt()
    torch.testing.assert_close(deviation, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(mean, AutoencoderFlux2Codec(str(folder)).encode(images))


def test_image_sides_must_be_multiples_of_the_cell_size(vae):
    with pytest.raises(ConfigError, match="multiples of 16"):
        AutoencoderFlux2Codec(str(vae[0])).encode(torch.zeros(1, 3, 24, 32))


def test_the_codec_is_rebuilt_from_its_config(vae):
    codec = AutoencoderFlux2Codec(str(vae[0]), name="flux2")
    again = build_codec(codec.name, codec.config())
    assert isinstance(again, AutoencoderFlux2Codec) and again.fingerprint() == codec.fingerprint()
