"""Files that are no autoencoder are refused before anything is decoded."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.codecs.test_autoencoder_kl import WEIGHTS
from tinyflux_pl.codecs.autoencoder_kl import AutoencoderKLCodec
from tinyflux_pl.core.errors import CheckpointMismatch, ConfigError, CorruptCheckpoint, HubError


def test_weights_of_another_network_are_refused(release, tmp_path, images):
    shutil.copytree(release[0], tmp_path / "broken")
    file = tmp_path / "broken" / "vae" / WEIGHTS
    tensors = load_file(file)
    del tensors["encoder.conv_in.bias"]
    save_file(tensors, file)
    with pytest.raises(CheckpointMismatch, match=r"encoder\.conv_in\.bias"):
        AutoencoderKLCodec(str(tmp_path / "broken")).encode(images)


def test_wrong_folders_sizes_and_choices_are_refused(release, tmp_path):
    with pytest.raises(HubError, match=r"config\.json"):
        AutoencoderKLCodec(str(release[0]), subfolder="").fingerprint()
    with pytest.raises(ConfigError, match="no file or folder"):
        AutoencoderKLCodec(str(tmp_path / "nowhere")).fingerprint()
    with pytest.raises(ConfigError, match="multiples of 4"):
        AutoencoderKLCodec(str(release[0])).encode(torch.zeros(1, 3, 16, 18))
    with pytest.raises(ConfigError, match="scaling"):
        AutoencoderKLCodec(str(release[0]), scaling="none")


def test_misshapen_weights_and_truncated_files_are_named(release, tmp_path, images):
    shutil.copytree(release[0], tmp_path / "broken")
    file = tmp_path / "broken" / "vae" / WEIGHTS
    tensors = load_file(file)
    save_file({**tensors, "encoder.conv_in.bias": torch.zeros(9)}, file)
    with pytest.raises(
        CheckpointMismatch, match=r"of another shape: encoder\.conv_in\.bias \(9,\) for \(8,\)"
    ):
        AutoencoderKLCodec(str(tmp_path / "broken")).encode(images)
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(CorruptCheckpoint, match="not a complete safetensors file"):
        AutoencoderKLCodec(str(tmp_path / "broken")).encode(images)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda t: {k: v for k, v in t.items() if k != "encoder.conv_in.bias"},
            r"1 missing: encoder\.conv_in\.bias",
        ),
        (
            lambda t: {**t, "decoder.extra.weight": torch.ones(1)},
            r"1 unexpected: decoder\.extra\.weight",
        ),
        (
            lambda t: {**t, "encoder.conv_in.weight_scale": torch.ones(2, 2)},
            r"scale of shape \(2, 2\)",
        ),
        (
            lambda t: {**t, "encoder.nowhere.weight_scale": torch.ones(1)},
            "a scale without a weight",
        ),
    ],
)
def test_an_autoencoder_of_another_kind_is_refused_by_its_headers(release, tmp_path, change, says):
    file = shutil.copytree(release[0], tmp_path / "other") / "vae" / WEIGHTS
    save_file(change(load_file(file)), file)
    codec = AutoencoderKLCodec(str(tmp_path / "other"))
    with pytest.raises(CheckpointMismatch, match=says):
        _ = codec.latent_spec
    assert codec._model is None


def test_a_truncated_autoencoder_is_refused_before_decoding(release, tmp_path):
    file = shutil.copytree(release[0], tmp_path / "torn") / "vae" / WEIGHTS
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(
        CorruptCheckpoint, match=r"not a complete safetensors file[\s\S]*fetch it again"
    ):
        _ = AutoencoderKLCodec(str(tmp_path / "torn")).latent_spec


def test_a_config_that_describes_no_autoencoder_is_refused_in_three_lines(
    release, tmp_path, capsys
):
    path = shutil.copytree(release[0], tmp_path / "odd") / "vae" / "config.json"
    settings = json.loads(path.read_text())
    for invalid in (
        {"norm_num_groups": 3},
        {"block_out_channels": "many"},
        {"down_block_types": ["NoBlock2D"] * 3},
    ):
        path.write_text(json.dumps({**settings, **invalid}))
        with pytest.raises(ConfigError, match=r"not the structure of an AutoencoderKL[\s\S]*do:"):
            AutoencoderKLCodec(str(tmp_path / "odd")).encode(torch.zeros(1, 3, 16, 16))
    path.write_text(json.dumps({**settings, "of_tomorrow": 1}))
    AutoencoderKLCodec(str(tmp_path / "odd")).encode(torch.zeros(1, 3, 16, 16))
    assert "of_tomorrow" in capsys.readouterr().out
    path.write_text(json.dumps({**settings, "quantization_config": {"quant_method": "gptq"}}))
    with pytest.raises(CheckpointMismatch, match="packed by gptq"):
        _ = AutoencoderKLCodec(str(tmp_path / "odd")).latent_spec
