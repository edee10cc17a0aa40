import json

import pytest
import torch
from safetensors.torch import load_file

from tinyflux_pl.codecs.pixel_folding import PixelFolding
from tinyflux_pl.core.errors import CheckpointMismatch, ConfigError, CorruptCheckpoint, SpecMismatch
from tinyflux_pl.core.files import sha256, write_json, write_tensors
from tinyflux_pl.core.fingerprint import canonical
from tinyflux_pl.core.types import Conditioning
from tinyflux_pl.experts.teacher import Teacher, embedded, sd15_flow
from tinyflux_pl.text.hashed_words import HashedWords


def export(teacher, folder, dtype=torch.float16):
    """Write an exported teacher as the export step does."""
    denoiser = teacher.denoiser
    weights = folder / f"{teacher.name}.safetensors"
    write_tensors(weights, {k: v.to(dtype) for k, v in denoiser.state_dict().items()})
    description = {
        "denoiser": "unet",
        "config": denoiser.config_dict(),
        "path": {"name": denoiser.path.name, "config": denoiser.path.config()},
        "prediction": denoiser.prediction,
        "codec": {"name": teacher.codec.name, "config": teacher.codec.config()},
        "text": {"name": teacher.text.name, "config": teacher.text.config()},
        "sha256": sha256(weights),
        "recipe": "python train.py ...",
    }
    write_json(folder / f"{teacher.name}.json", description)
    return weights


@pytest.mark.parametrize("name", ["lune", "sol"])
def test_an_exported_teacher_is_loaded_in_fp32(name, tmp_path, request, samples):
    teacher = request.getfixturevalue(f"{name}_teacher")
    weights = export(teacher, tmp_path)
    again = embedded(name, tmp_path)
    assert again.dtype == torch.float32 and again.weights == sha256(weights)
    assert (
        again.denoiser.path == teacher.denoiser.path
        and again.denoiser.prediction == teacher.denoiser.prediction
    )
    assert not again.denoiser.training and not any(
        p.requires_grad for p in again.denoiser.parameters()
    )
    latents, text, _ = samples
    t, cond = torch.full((4,), 0.4), Conditioning(text)
    teacher.denoiser.half().float()
    torch.testing.assert_close(
        again.denoiser(latents, t, cond).sample, teacher.denoiser(latents, t, cond).sample
    )
    canonical(again.fingerprint())  # plain data


def test_altered_missing_or_foreign_teachers_are_refused(tmp_path, lune_teacher):
    with pytest.raises(ConfigError, match=r"lune\.safetensors is missing"):
        embedded("lune", tmp_path)
    weights = export(lune_teacher, tmp_path)
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CorruptCheckpoint, match="is not the file"):
        embedded("lune", tmp_path)
    description = tmp_path / "lune.json"
    described = json.loads(description.read_text())
    write_json(description, {**described, "denoiser": "tinyflux", "sha256": sha256(weights)})
    with pytest.raises(ConfigError, match="UNets"):
        embedded("lune", tmp_path)
    del described["path"]
    write_json(description, described)
    with pytest.raises(CorruptCheckpoint, match="path"):
        embedded("lune", tmp_path)


def test_teachers_reject_a_codec_or_text_that_they_were_not_trained_with(lune_teacher):
    with pytest.raises(SpecMismatch, match="channels"):
        Teacher(lune_teacher.denoiser, PixelFolding(4), lune_teacher.text, "lune", "0")
    with pytest.raises(SpecMismatch, match="length"):
        Teacher(lune_teacher.denoiser, lune_teacher.codec, HashedWords(16, 9), "lune", "0")


@pytest.fixture
def release(tmp_path, lune_teacher):
    """Stable Diffusion 1.5's layout (unet/config.json) and a flow release of bare UNet keys."""
    unet = lune_teacher.denoiser.unet
    unet.save_config(tmp_path / "sd15" / "unet")
    tensors = {k: v.half() for k, v in unet.state_dict().items()}
    for name in ("lune", "sol"):
        write_tensors(tmp_path / f"sd15-flow-{name}-unet.safetensors", tensors)
    return tmp_path


def load(release, name, weights=None, **changes):
    file = weights or str(release / f"sd15-flow-{name}-unet.safetensors")
    return sd15_flow(
        name, str(release / "sd15"), file, PixelFolding(2), HashedWords(16, 6), **changes
    )


def test_published_flow_teachers_keep_their_own_time_convention(release, lune_teacher, samples):
    lune, sol = load(release, "lune"), load(release, "sol")
    assert (lune.denoiser.path.name, lune.denoiser.path.noise_at, lune.denoiser.prediction) == (
        "linear",
        1,
        "velocity",
    )
    assert (sol.denoiser.path.name, sol.denoiser.prediction, sol.denoiser.time_scale) == (
        "vp",
        "v",
        999.0,
    )
    assert (lune.shift, sol.shift) == (2.0, 1.0)
    assert not lune.denoiser.masks_text
    latents, text, _ = samples
    full = type(text)(text.tokens, torch.ones_like(text.mask), text.pooled)
    lune_teacher.denoiser.half().float()
    t = torch.full((4,), 0.4)
    expected = lune_teacher.denoiser(latents, t, Conditioning(full)).sample
    torch.testing.assert_close(
        lune.denoiser(latents, t, Conditioning(text)).sample, expected, atol=1e-5, rtol=1e-4
    )
    assert load(release, "lune", dtype="bfloat16").dtype == torch.bfloat16


def test_weights_may_be_a_folder_with_one_weights_file(release):
    assert load(release, "sol", weights=str(release)).weights == load(release, "sol").weights


def test_flow_weights_load_strictly(release):
    file = release / "sd15-flow-lune-unet.safetensors"
    tensors = load_file(file)
    gone = tensors.pop("conv_in.bias")
    write_tensors(file, {**tensors, "conv_in.offset": gone})
    with pytest.raises(
        CheckpointMismatch, match=r"1 missing: conv_in\.bias; 1 unexpected: conv_in\.offset"
    ):
        load(release, "lune")
    write_tensors(file, {**tensors, "conv_in.bias": gone[:-1]})
    with pytest.raises(CheckpointMismatch, match=r"conv_in\.bias \(7,\) for \(8,\)"):
        load(release, "lune")
    file.write_bytes(b"\x80pickle")
    with pytest.raises(CorruptCheckpoint, match="safetensors"):
        load(release, "lune")
    with pytest.raises(ConfigError, match="flow teacher"):
        load(release, "luna")
