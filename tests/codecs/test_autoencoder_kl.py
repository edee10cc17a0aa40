import inspect
import json
import shutil

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file

from tinyflux_pl.codecs.autoencoder_flux2 import AutoencoderFlux2Codec
from tinyflux_pl.codecs.autoencoder_kl import AutoencoderKLCodec
from tinyflux_pl.codecs.registry import build_codec
from tinyflux_pl.core.errors import ConfigError, HubError
from tinyflux_pl.core.specs import LatentSpec

WEIGHTS = "diffusion_pytorch_model.safetensors"


def test_latents_are_shifted_and_scaled_by_the_numbers_of_the_release(release, images):
    folder, vae = release
    codec = AutoencoderKLCodec(str(folder))
    mode = vae.encode(images).latent_dist.mode()
    torch.testing.assert_close(codec.encode(images), (mode - 0.1159) * 0.3611, rtol=1e-5, atol=1e-6)
    assert codec.latent_spec == LatentSpec(6, 4)
    torch.testing.assert_close(
        codec.decode(codec.encode(images)), vae.decode(mode).sample, rtol=1e-4, atol=1e-5
    )


def test_unshifted_scaling_omits_the_shift_in_encoding_and_decoding(release, images):
    folder, vae = release
    codec = AutoencoderKLCodec(str(folder), scaling="unshifted")
    mode = vae.encode(images).latent_dist.mode()
    torch.testing.assert_close(codec.encode(images), mode * 0.3611, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        codec.decode(codec.encode(images)), vae.decode(mode).sample, rtol=1e-4, atol=1e-5
    )
    assert codec.fingerprint() != AutoencoderKLCodec(str(folder)).fingerprint()


def test_encoding_with_noise_samples_the_posterior(release, images):
    folder, vae = release
    codec = AutoencoderKLCodec(str(folder))
    posterior = vae.encode(images).latent_dist
    noise = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(2))
    expected = (posterior.mean + posterior.std * noise - 0.1159) * 0.3611
    torch.testing.assert_close(codec.encode(images, noise), expected, rtol=1e-5, atol=1e-6)


def test_a_sampled_posterior_is_cached_as_mean_and_deviation(release, images):
    folder, vae = release
    plain = AutoencoderKLCodec(str(folder))
    codec = AutoencoderKLCodec(str(folder), posterior="sampled")
    posterior = vae.encode(images).latent_dist
    mean, deviation = codec.encode_moments(images)
    assert torch.equal(mean, plain.encode(images)) and plain.encode_moments(images)[1] is None
    torch.testing.assert_close(deviation, posterior.std * 0.3611, rtol=1e-4, atol=1e-6)
    assert codec.fingerprint() == {**plain.fingerprint(), "posterior": "sampled"}
    assert build_codec("autoencoder_kl", codec.config()).posterior == "sampled"
    with pytest.raises(ConfigError, match="no posterior 'mode'"):
        AutoencoderKLCodec(str(folder), posterior="mode")


def test_the_autoencoder_loads_on_first_use_and_can_be_freed(release, images):
    codec = AutoencoderKLCodec(str(release[0]))
    codec.fingerprint()
    assert codec._model is None
    first = codec.encode(images)
    codec.free()
    assert codec._model is None
    torch.testing.assert_close(codec.encode(images), first, rtol=0, atol=0)


def test_the_fingerprint_depends_on_content_and_not_on_the_path(release, tmp_path):
    folder, _ = release
    shutil.copytree(folder, tmp_path / "copy")
    original, copy = AutoencoderKLCodec(str(folder)), AutoencoderKLCodec(str(tmp_path / "copy"))
    assert original.fingerprint() == copy.fingerprint()
    file = tmp_path / "copy" / "vae" / WEIGHTS
    tensors = load_file(file)
    tensors["encoder.conv_in.bias"] = tensors["encoder.conv_in.bias"] + 1
    save_file(tensors, file)
    assert AutoencoderKLCodec(str(tmp_path / "copy")).fingerprint() != original.fingerprint()


def test_the_codec_is_rebuilt_from_its_name_and_config(release, images):
    codec = AutoencoderKLCodec(str(release[0]), scaling="unshifted", name="flux1_unshifted")
    again = build_codec(codec.name, codec.config())
    torch.testing.assert_close(again.encode(images), codec.encode(images), rtol=0, atol=0)
    assert again.name == "flux1_unshifted"


def test_a_config_without_shift_or_scale_uses_the_numbers_of_stable_diffusion_15(release, tmp_path):
    shutil.copytree(release[0], tmp_path / "sd")
    path = tmp_path / "sd" / "vae" / "config.json"
    config = json.loads(path.read_text())
    del config["shift_factor"], config["scaling_factor"]
    path.write_text(json.dumps(config))
    codec = AutoencoderKLCodec(str(tmp_path / "sd"))
    assert (codec.scale, codec.shift) == (0.18215, 0.0)


def test_scaled_float8_weights_in_a_folder_are_dequantized(release, tmp_path, images):
    paths = [
        shutil.copytree(release[0], tmp_path / name) / "vae" / WEIGHTS
        for name in ("packed", "meant")
    ]
    key, tensors = "decoder.mid_block.resnets.0.conv1", load_file(paths[0])
    scale = tensors[f"{key}.weight"].abs().amax((1, 2, 3)) / 448
    packed = (tensors[f"{key}.weight"] / scale[:, None, None, None]).to(torch.float8_e4m3fn)
    save_file({**tensors, f"{key}.weight": packed, f"{key}.weight_scale": scale}, paths[0])
    save_file({**tensors, f"{key}.weight": packed.float() * scale[:, None, None, None]}, paths[1])
    one, other = (AutoencoderKLCodec(str(tmp_path / name)) for name in ("packed", "meant"))
    latents = other.encode(images)
    torch.testing.assert_close(one.decode(latents), other.decode(latents), rtol=0, atol=0)


def test_attention_keys_of_early_diffusers_versions_are_read(release, tmp_path, images):
    file = shutil.copytree(release[0], tmp_path / "old") / "vae" / WEIGHTS
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = load_file(file)
    for new, name in old.items():
        tensors = {k.replace(f".{new}.", f".{name}."): v for k, v in tensors.items()}
    assert "decoder.mid_block.attentions.0.proj_attn.weight" in tensors
    save_file(tensors, file)
    reference, loaded = (
        AutoencoderKLCodec(str(release[0])),
        AutoencoderKLCodec(str(tmp_path / "old")),
    )
    torch.testing.assert_close(loaded.encode(images), reference.encode(images), rtol=0, atol=0)


def test_two_variants_without_a_choice_are_refused(release, tmp_path, images):
    folder = shutil.copytree(release[0], tmp_path / "variants") / "vae"
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    for name, number in (("fp16", 1.0), ("non_ema", 2.0)):
        changed = {**tensors, "encoder.conv_in.bias": torch.full((8,), number)}
        save_file(changed, folder / f"diffusion_pytorch_model.{name}.safetensors")
    with pytest.raises(HubError, match=r"fp16, non_ema[\s\S]*codec\.variant=fp16"):
        _ = AutoencoderKLCodec(str(tmp_path / "variants")).latent_spec
    codecs = {
        name: AutoencoderKLCodec(str(tmp_path / "variants"), variant=name)
        for name in ("fp16", "non_ema")
    }
    assert not torch.equal(*(codec.encode(images) for codec in codecs.values()))
    assert codecs["fp16"].fingerprint() != codecs["non_ema"].fingerprint()
    assert build_codec("sdxl", codecs["non_ema"].config()).variant == "non_ema"
    with pytest.raises(
        HubError,
        match=r"no weights of the variant bf16; there are: fp16, non_ema[\s\S]*codec\.variant",
    ):
        _ = AutoencoderKLCodec(str(tmp_path / "variants"), variant="bf16").latent_spec


@pytest.mark.parametrize("values", [{"act_fn": "relu"}, {"norm_num_groups": 2}])
def test_config_settings_that_change_latents_are_in_the_fingerprint(release, tmp_path, values):
    path = shutil.copytree(release[0], tmp_path / "other") / "vae" / "config.json"
    settings, before = (
        json.loads(path.read_text()),
        AutoencoderKLCodec(str(release[0])).fingerprint(),
    )
    path.write_text(
        json.dumps(
            {
                **settings,
                "_diffusers_version": "0.1",
                "sample_size": 7,
                "mid_block_add_attention": True,
            }
        )
    )
    # none of these changes a number
    assert AutoencoderKLCodec(str(tmp_path / "other")).fingerprint() == before
    path.write_text(json.dumps({**settings, **values}))
    assert AutoencoderKLCodec(str(tmp_path / "other")).fingerprint() == {**before, **values}


# of diffusers' classes: numbers of their own in the fingerprint; told by shapes; without effect on
# latents
NUMBERS = {"scaling_factor", "shift_factor", "latents_mean", "latents_std"}
SHAPES = {
    "in_channels",
    "out_channels",
    "down_block_types",
    "up_block_types",
    "block_out_channels",
    "latent_channels",
}
SHAPES |= {
    "layers_per_block",
    "use_quant_conv",
    "use_post_quant_conv",
    "mid_block_add_attention",
    "patch_size",
}
SHAPES |= {"decoder_block_out_channels"}
NOTHING = {"sample_size", "force_upcast", "batch_norm_momentum", "self"}


@pytest.mark.parametrize("codec", [AutoencoderKLCodec, AutoencoderFlux2Codec])
def test_every_autoencoder_setting_is_classified_for_the_fingerprint(codec):
    signature = inspect.signature(getattr(diffusers, codec.kind).__init__).parameters
    assert signature.keys() - NUMBERS - SHAPES - NOTHING == codec.deciding.keys()
    assert {key: signature[key].default for key in codec.deciding} == codec.deciding


def test_large_batches_are_split_without_changing_the_result(release, images, monkeypatch):
    codec = AutoencoderKLCodec(str(release[0]))
    unsplit = codec.encode(images), codec.decode(codec.encode(images))
    monkeypatch.setattr("tinyflux_pl.codecs.tiles.PIXELS", 1)
    torch.testing.assert_close(
        (codec.encode(images), codec.decode(unsplit[0])), unsplit, rtol=1e-5, atol=1e-6
    )
