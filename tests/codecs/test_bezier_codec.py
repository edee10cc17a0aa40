"""The trained autoencoder as a codec: normalised latents, verified weights, only its own files."""

import pytest
import torch

from tinyflux_pl.checkpoints import directory
from tinyflux_pl.codecs.autoencoder_networks import AutoencoderNetworks
from tinyflux_pl.codecs.bezier import BezierCodec
from tinyflux_pl.codecs.bezier_networks import AutoencoderConfig
from tinyflux_pl.codecs.registry import build_codec
from tinyflux_pl.core.errors import CheckpointMismatch, ConfigError, CorruptCheckpoint
from tinyflux_pl.core.specs import LatentSpec

SIZES = AutoencoderConfig(4, (4, 8), (4, 8), 1, 2, 4, 8)
CRITIC = {"base_ch": 4, "depth": 1, "ctx_dim": 4}


def networks(seed=0):
    torch.manual_seed(seed)
    built = AutoencoderNetworks(SIZES, CRITIC, LatentSpec(3, 1))
    built.autoencoder.latent_mean.copy_(torch.linspace(-1, 1, 4))
    built.autoencoder.latent_std.copy_(torch.linspace(0.5, 2, 4))
    return built


def save(path, module, averaged=None, name="bezier_autoencoder"):
    config = {"denoiser": {"name": name, "config": module.config_dict()}}
    weights = module.state_dict()
    return directory.save(
        path, step=1, config=config, weights=weights, averaged=averaged, state=None
    )


@pytest.fixture
def run_folder(tmp_path):
    module = networks()
    averaged = {k: v + 0.01 for k, v in module.named_parameters()}
    save(tmp_path / "checkpoints" / "step_0000001", networks(1))
    save(tmp_path / "checkpoints" / "step_0000002", module, averaged)
    return tmp_path


def test_latents_are_normalised_by_the_stored_statistics(run_folder):
    codec = BezierCodec(str(run_folder))
    assert codec.latent_spec == LatentSpec(4, 4)
    images = torch.rand(2, 3, 8, 12) * 2 - 1
    latents = codec.encode(images)
    assert latents.shape == (2, 4, 2, 3)
    network = codec._loaded()
    mean, _ = network.encoder(images)
    restored = latents * network.latent_std.view(-1, 1, 1) + network.latent_mean.view(-1, 1, 1)
    torch.testing.assert_close(restored, mean)
    torch.testing.assert_close(codec.decode(latents), network.decoder(mean))


def test_the_newest_checkpoint_and_its_averages_are_read(run_folder):
    codec = BezierCodec(str(run_folder))
    expected = networks().autoencoder.encoder.mean.weight + 0.01
    torch.testing.assert_close(codec._loaded().encoder.mean.weight, expected)
    other = BezierCodec(str(run_folder / "checkpoints" / "step_0000001"))
    assert other.fingerprint() != codec.fingerprint()


def test_the_stored_description_rebuilds_the_codec_and_refuses_other_weights(run_folder):
    codec = BezierCodec(str(run_folder))
    again = build_codec("bezier", codec.config())
    images = torch.rand(1, 3, 4, 4)
    assert torch.equal(again.encode(images), codec.encode(images))
    changed = {**codec.config(), "checkpoint": str(run_folder / "checkpoints" / "step_0000001")}
    with pytest.raises(CheckpointMismatch, match="weights"):
        BezierCodec(**changed).encode(images)


def test_memory_plans_need_no_weights(run_folder):
    codec = BezierCodec(str(run_folder))
    assert next(codec.skeleton().parameters()).is_meta
    assert codec.to("meta").decode(torch.empty(2, 4, 2, 2, device="meta")).shape == (2, 3, 8, 8)
    codec.to("cpu").free()
    assert codec.decode(torch.zeros(1, 4, 1, 1)).shape == (1, 3, 4, 4)


def test_missing_foreign_and_altered_checkpoints_are_refused(run_folder, tmp_path):
    with pytest.raises(ConfigError, match="weights"):
        _ = BezierCodec(None).latent_spec
    with pytest.raises(ConfigError, match="no checkpoint"):
        _ = BezierCodec(str(tmp_path / "nowhere")).latent_spec
    save(tmp_path / "other", networks(), name="tinyflux")
    with pytest.raises(CheckpointMismatch, match="tinyflux"):
        _ = BezierCodec(str(tmp_path / "other")).latent_spec
    weights = run_folder / "checkpoints" / "step_0000002" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    with pytest.raises(CorruptCheckpoint, match="changed after it was written"):
        BezierCodec(str(run_folder)).encode(torch.zeros(1, 3, 4, 4))


def test_a_description_of_impossible_sizes_is_refused(tmp_path):
    module = networks()
    config = module.config_dict()
    config["autoencoder"]["attention_layers"] = 10**9
    description = {"denoiser": {"name": module.name, "config": config}}
    directory.save(
        tmp_path / "c",
        step=1,
        config=description,
        weights=module.state_dict(),
        averaged=None,
        state=None,
    )
    with pytest.raises(ConfigError, match="integers"):
        _ = BezierCodec(str(tmp_path / "c")).latent_spec
