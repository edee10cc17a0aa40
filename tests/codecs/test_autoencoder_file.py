"""An autoencoder from a single file, in diffusers' layout and in that of the original releases."""

import re

import pytest
import torch
from safetensors.torch import save_file

from tests import releases
from tinyflux_pl.codecs.autoencoder_kl import AutoencoderKLCodec
from tinyflux_pl.core.errors import CheckpointMismatch, ConfigError

LEVELS = 3
RENAMED = (
    (r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2"),
    (r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample"),
    (r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"up.{LEVELS - 1 - int(m[1])}.block.{m[2]}"),
    (r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{LEVELS - 1 - int(m[1])}.upsample"),
    (r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}"),
    (r"mid_block\.attentions\.0\.group_norm", "mid.attn_1.norm"),
    (r"mid_block\.attentions\.0\.to_([qkv])", r"mid.attn_1.\1"),
    (r"mid_block\.attentions\.0\.to_out\.0", "mid.attn_1.proj_out"),
    ("conv_shortcut", "nin_shortcut"),
    ("conv_norm_out", "norm_out"),
)


def original(tensors):
    """The keys of ae.safetensors, where attention was made of 1 x 1 convolutions."""
    made = {}
    for key, value in tensors.items():
        for pattern, new in RENAMED:
            key = re.sub(pattern, new, key)
        made[key] = value[..., None, None] if re.search(r"attn_1\.(q|k|v|proj_out)\.weight", key) else value
    return made


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    folder = tmp_path_factory.mktemp("release")
    made = releases.vae(
        folder,
        block_out_channels=(8, 8, 16),
        latent_channels=6,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    return folder, made


def codec(file, vae, **changes):
    structure = {key: value for key, value in vae.config.items() if not key.startswith("_")}
    return AutoencoderKLCodec(str(file), structure={**structure, **changes})


@pytest.mark.parametrize(("layout", "prefix"), [(dict, ""), (original, ""), (original, "first_stage_model.")])
def test_a_file_in_either_layout_is_the_folder(release, tmp_path, layout, prefix):
    folder, vae = release
    tensors = {prefix + key: value.contiguous() for key, value in layout(vae.state_dict()).items()}
    more = {"model.diffusion_model.x.weight": torch.ones(1)} if prefix else {}
    save_file({**tensors, **more}, tmp_path / "ae.safetensors")
    made, whole = codec(tmp_path / "ae.safetensors", vae), AutoencoderKLCodec(str(folder))
    images = torch.rand(1, 3, 16, 24) * 2 - 1
    torch.testing.assert_close(made.encode(images), whole.encode(images), rtol=0, atol=0)
    torch.testing.assert_close(made.decode(made.encode(images)), whole.decode(whole.encode(images)), rtol=0, atol=0)
    assert made.latent_spec == whole.latent_spec and made.fingerprint()["scale"] == 0.3611


def test_a_file_of_another_autoencoder_is_refused(release, tmp_path):
    _, vae = release
    file = tmp_path / "ae.safetensors"
    images = torch.zeros(1, 3, 16, 16)
    save_file({k: v.contiguous() for k, v in original(vae.state_dict()).items()}, file)
    with pytest.raises(CheckpointMismatch, match=r"quant_conv|missing"):
        codec(file, vae, use_quant_conv=True).encode(images)
    with pytest.raises(CheckpointMismatch, match="have a place"):
        tensors = {**original(vae.state_dict()), "encoder.extra.weight": torch.ones(1)}
        save_file({k: v.contiguous() for k, v in tensors.items()}, file)
        codec(file, vae).encode(images)


def test_without_weights_or_structure_it_says_what_to_give(tmp_path):
    save_file({"a": torch.ones(1)}, tmp_path / "ae.safetensors")
    with pytest.raises(ConfigError, match=r"codec\.structure"):
        AutoencoderKLCodec(str(tmp_path / "ae.safetensors")).encode(torch.zeros(1, 3, 16, 16))
    planned = AutoencoderKLCodec(None, structure=dict(block_out_channels=[8, 8]))
    assert planned.latent_spec.downsample == 2
    with pytest.raises(ConfigError, match=r"codec\.weights"):
        planned.encode(torch.zeros(1, 3, 16, 16))
