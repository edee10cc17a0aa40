"""An autoencoder from a single file, in diffusers' layout and in that of the original releases."""

import shutil

import pytest
import torch
from safetensors.torch import save_file

from tests import releases, releases_flux2
from tests.original_layouts import vae_original as original
from tinyflux_pl.codecs.autoencoder_flux2 import AutoencoderFlux2Codec
from tinyflux_pl.codecs.autoencoder_kl import AutoencoderKLCodec
from tinyflux_pl.core.errors import CheckpointMismatch, ConfigError

STEM = "diffusion_pytorch_model"


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    folder = tmp_path_factory.mktemp("release")
    model = releases.vae(
        folder,
        block_out_channels=(8, 8, 16),
        latent_channels=6,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    return folder, model


def codec(file, vae, **changes):
    structure = {key: value for key, value in vae.config.items() if not key.startswith("_")}
    return AutoencoderKLCodec(str(file), structure={**structure, **changes})


@pytest.mark.parametrize(
    ("layout", "prefix"), [(dict, ""), (original, ""), (original, "first_stage_model.")]
)
def test_a_single_file_in_either_layout_equals_the_folder(release, tmp_path, layout, prefix):
    folder, vae = release
    tensors = {prefix + key: value.contiguous() for key, value in layout(vae.state_dict()).items()}
    more = {"model.diffusion_model.x.weight": torch.ones(1)} if prefix else {}
    save_file({**tensors, **more}, tmp_path / "ae.safetensors")
    loaded, reference = codec(tmp_path / "ae.safetensors", vae), AutoencoderKLCodec(str(folder))
    images = torch.rand(1, 3, 16, 24) * 2 - 1
    torch.testing.assert_close(loaded.encode(images), reference.encode(images), rtol=0, atol=0)
    torch.testing.assert_close(
        loaded.decode(loaded.encode(images)),
        reference.decode(reference.encode(images)),
        rtol=0,
        atol=0,
    )
    assert loaded.latent_spec == reference.latent_spec and loaded.fingerprint()["scale"] == 0.3611


def test_a_file_of_another_autoencoder_is_refused(release, tmp_path):
    _, vae = release
    file = tmp_path / "ae.safetensors"
    images = torch.zeros(1, 3, 16, 16)
    save_file({k: v.contiguous() for k, v in original(vae.state_dict()).items()}, file)
    with pytest.raises(CheckpointMismatch, match=r"quant_conv|missing"):
        codec(file, vae, use_quant_conv=True).encode(images)
    with pytest.raises(CheckpointMismatch, match=r"1 unexpected: encoder\.extra\.weight\n"):
        tensors = {**original(vae.state_dict()), "encoder.extra.weight": torch.ones(1)}
        save_file({k: v.contiguous() for k, v in tensors.items()}, file)
        codec(file, vae).encode(images)


def test_the_error_without_weights_or_structure_names_the_keys_to_set(tmp_path):
    save_file({"decoder.conv_in.weight": torch.ones(1)}, tmp_path / "ae.safetensors")
    with pytest.raises(ConfigError, match=r"codec\.structure"):
        AutoencoderKLCodec(str(tmp_path / "ae.safetensors")).encode(torch.zeros(1, 3, 16, 16))
    planned = AutoencoderKLCodec(None, structure=dict(block_out_channels=[8, 8]))
    assert planned.latent_spec.downsample == 2
    with pytest.raises(ConfigError, match=r"codec\.weights"):
        planned.encode(torch.zeros(1, 3, 16, 16))


def test_a_lone_variant_is_read_and_unsuffixed_weights_take_precedence(release, tmp_path):
    folder, vae = release
    half = shutil.copytree(folder, tmp_path / "half")
    (half / "vae" / f"{STEM}.safetensors").unlink()
    save_file(
        {k: v.half() for k, v in vae.state_dict().items()},
        half / "vae" / f"{STEM}.fp16.safetensors",
    )
    images = torch.rand(1, 3, 16, 16) * 2 - 1
    loaded, reference = AutoencoderKLCodec(str(half)), AutoencoderKLCodec(str(folder))
    assert not torch.equal(loaded.encode(images), reference.encode(images))
    torch.testing.assert_close(
        loaded.encode(images), reference.encode(images), rtol=1e-2, atol=1e-2
    )
    assert loaded.fingerprint() != reference.fingerprint()
    shutil.copy(folder / "vae" / f"{STEM}.safetensors", half / "vae")
    both = AutoencoderKLCodec(str(half))
    assert (
        torch.equal(both.encode(images), reference.encode(images))
        and both.fingerprint() == reference.fingerprint()
    )


def test_a_file_without_autoencoder_uses_that_of_its_release_folder(release, tmp_path):
    folder, _ = release
    around = shutil.copytree(folder, tmp_path / "around")
    save_file({"double_blocks.0.x": torch.ones(1)}, around / "flux1-dev.safetensors")
    loaded = AutoencoderKLCodec(
        str(around / "flux1-dev.safetensors"), structure={"block_out_channels": [1]}
    )
    assert loaded.fingerprint() == AutoencoderKLCodec(str(folder)).fingerprint()
    assert loaded.latent_spec.channels == 6
    (around / "flux1-dev.safetensors").rename(tmp_path / "flux1-dev.safetensors")
    with pytest.raises(
        ConfigError, match=r"holds no autoencoder[\s\S]*codec\.weights=[\s\S]*release\.weights="
    ):
        AutoencoderKLCodec(str(tmp_path / "flux1-dev.safetensors")).encode(
            torch.zeros(1, 3, 16, 16)
        )


@pytest.mark.parametrize("counted", [True, False])
def test_the_original_flux2_file_equals_the_folder(tmp_path, counted):
    vae = releases_flux2.flux2_vae(tmp_path)
    tensors = original(vae.state_dict())
    assert {
        "encoder.quant_conv.weight",
        "decoder.post_quant_conv.bias",
        "bn.running_mean",
    } < tensors.keys()
    if not counted:
        del tensors["bn.num_batches_tracked"]
    save_file(tensors, tmp_path / "ae.safetensors")
    structure = {key: value for key, value in vae.config.items() if not key.startswith("_")}
    loaded = AutoencoderFlux2Codec(str(tmp_path / "ae.safetensors"), structure=structure)
    reference, images = AutoencoderFlux2Codec(str(tmp_path)), torch.rand(1, 3, 32, 32) * 2 - 1
    torch.testing.assert_close(loaded.encode(images), reference.encode(images), rtol=0, atol=0)
    torch.testing.assert_close(
        loaded.decode(loaded.encode(images)),
        reference.decode(reference.encode(images)),
        rtol=0,
        atol=0,
    )
    save_file(
        {k: v for k, v in tensors.items() if k != "bn.running_var"}, tmp_path / "torn.safetensors"
    )
    with pytest.raises(CheckpointMismatch, match=r"1 missing: bn\.running_var"):
        AutoencoderFlux2Codec(str(tmp_path / "torn.safetensors"), structure=structure).encode(
            images
        )


COUNTED = {"model_ema.decay": torch.tensor(0.999), "model_ema.num_updates": torch.tensor(7)}


@pytest.mark.parametrize("layout", [dict, original])
@pytest.mark.parametrize("prefix", ["", "vae.", "_orig_mod.", "module.", "module.vae._orig_mod."])
def test_step_counters_and_trainer_prefixes_are_ignored(release, tmp_path, layout, prefix):
    folder, vae = release
    tensors = {prefix + key: value.contiguous() for key, value in layout(vae.state_dict()).items()}
    save_file({**tensors, **COUNTED}, tmp_path / "ae.safetensors")
    images = torch.rand(1, 3, 16, 24) * 2 - 1
    loaded, reference = codec(tmp_path / "ae.safetensors", vae), AutoencoderKLCodec(str(folder))
    torch.testing.assert_close(loaded.encode(images), reference.encode(images), rtol=0, atol=0)


@pytest.mark.parametrize(
    "stray", ["model_ema.encoderconv_inweight", "loss.logvar", "vae.decoder.conv_in.weight_scale"]
)
def test_keys_outside_the_autoencoder_are_named(release, tmp_path, stray):
    _, vae = release
    tensors = {
        f"vae.{key}": value.contiguous() for key, value in original(vae.state_dict()).items()
    }
    save_file({**tensors, stray: torch.ones(3)}, tmp_path / "ae.safetensors")
    with pytest.raises(CheckpointMismatch, match=r"1 unexpected|scale of shape \(3,\)"):
        codec(tmp_path / "ae.safetensors", vae).encode(torch.zeros(1, 3, 16, 16))
