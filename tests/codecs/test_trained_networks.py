"""Autoencoders that a run trains: FluxFlow's with each activation, and diffusers' AutoencoderKL."""

import pytest
import torch

from tinyflux_pl.checkpoints import directory
from tinyflux_pl.codecs.autoencoder_networks import with_critic
from tinyflux_pl.codecs.bezier import BezierCodec
from tinyflux_pl.codecs.bezier_networks import AutoencoderConfig
from tinyflux_pl.codecs.described_networks import described_networks, described_sizes
from tinyflux_pl.codecs.kl_networks import KLSizes
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.specs import LatentSpec

PIXELS = LatentSpec(3, 1)
SIZES = {
    "kl": KLSizes(4, (4, 8, 8), 1, 4),
    **{
        name: AutoencoderConfig(4, (4, 8), (4, 8), 1, 2, 4, 8, name)
        for name in ("bezier", "silu", "swiglu")
    },
}


def networks(name):
    torch.manual_seed(0)
    return with_critic(SIZES[name], 4, 1, PIXELS)


@pytest.mark.parametrize("name", SIZES)
def test_checkpointing_keeps_outputs_and_gradients_and_the_description_rebuilds(name):
    plain, frugal = networks(name), networks(name)
    frugal.enable_gradient_checkpointing()
    images = torch.rand(2, 3, 8, 12) * 2 - 1
    for network in (plain, frugal):
        restored = network(images)
        assert restored.shape == images.shape
        restored.square().mean().backward()
    gradients = [dict(n.autoencoder.named_parameters()) for n in (plain, frugal)]
    for key, parameter in gradients[0].items():
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, gradients[1][key].grad, msg=key)
    again = described_networks(plain.name, plain.config_dict(), PIXELS)
    again.load_state_dict(plain.state_dict())
    assert torch.equal(again(images), plain(images))


@pytest.mark.parametrize("name", ["kl", "swiglu"])
def test_each_kind_serves_as_a_codec(name, tmp_path):
    module = networks(name)
    config = {"denoiser": {"name": module.name, "config": module.config_dict()}}
    folder = tmp_path / "checkpoints" / "step_0000001"
    saved = {"weights": module.state_dict(), "averaged": None, "state": None}
    directory.save(folder, step=1, config=config, **saved)
    codec = BezierCodec(str(tmp_path))
    assert codec.latent_spec == LatentSpec(4, 4)
    images = torch.rand(1, 3, 8, 8) * 2 - 1
    restored = codec.decode(codec.encode(images))
    torch.testing.assert_close(restored, module.autoencoder(images))


def test_files_from_before_the_choice_of_activations_are_of_bezier_curves():
    sizes = SIZES["bezier"].config_dict()
    del sizes["activation"]
    assert described_sizes("bezier_autoencoder", sizes) == SIZES["bezier"]


def test_sizes_that_make_no_network_are_refused():
    with pytest.raises(ConfigError, match="no activation"):
        AutoencoderConfig(activation="relu")
    with pytest.raises(ConfigError, match="norm_groups"):
        KLSizes(4, (4, 6), 1, 4)
    with pytest.raises(KeyError):
        described_sizes("kl_autoencoder", {"latent_channels": 4})
