"""FLUX.1's encoders from separate files, from one checkpoint, and from float8."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import releases_flux1
from tests.original_layouts import clip_published, under
from tests.text.test_encoder_file import PROMPTS, same, structures
from tinyflux_pl.text.clip_t5 import ClipT5

FLUX1 = dict(
    t5="text_encoder_2", t5_tokenizer="tokenizer_2", clip="text_encoder", clip_tokenizer="tokenizer"
)


@pytest.fixture(scope="module")
def flux(tmp_path_factory):
    """FLUX.1's encoders as distributed by image tools: one file each, and in one checkpoint."""
    from transformers import CLIPTextModel, T5EncoderModel

    folder, files = (
        releases_flux1.flux1(tmp_path_factory.mktemp("flux1")),
        tmp_path_factory.mktemp("files"),
    )
    clip = clip_published(CLIPTextModel.from_pretrained(folder / "text_encoder"))
    t5 = T5EncoderModel.from_pretrained(folder / "text_encoder_2").state_dict()
    shared = {key: value for key, value in t5.items() if key != "encoder.embed_tokens.weight"}
    more = {"logit_scale": torch.tensor(4.6), "text_projection.weight": torch.ones(12, 12)}
    save_file(under("", {**clip, **more}), files / "clip_l.safetensors")
    save_file(under("", shared), files / "t5xxl_fp16.safetensors")
    checkpoint = {
        "model.diffusion_model.img_in.weight": torch.ones(1).to(torch.float8_e4m3fn),
        **under("text_encoders.clip_l.transformer.", clip),
        **under("text_encoders.t5xxl.transformer.", t5),
        "text_encoders.t5xxl.logit_scale": torch.tensor(4.6),
    }
    save_file(checkpoint, files / "flux1-dev-fp8.safetensors")
    options = structures(folder, t5="text_encoder_2", clip="text_encoder")
    return (
        folder,
        files,
        dict(structures=options, tokenizer=str(folder), subfolders=FLUX1, length=16, masked=False),
    )


@pytest.mark.parametrize("names", [("t5xxl_fp16", "clip_l"), ("flux1-dev-fp8", "flux1-dev-fp8")])
def test_flux1_encoders_load_from_separate_files_or_one_checkpoint(flux, names):
    folder, files, options = flux
    t5, clip = (str(files / f"{name}.safetensors") for name in names)
    reference = ClipT5(str(folder), str(folder), subfolders=FLUX1, length=16, masked=False)
    loaded = ClipT5(t5, clip, **options)
    assert loaded.text_spec == reference.text_spec
    same(loaded.encode(PROMPTS), reference.encode(PROMPTS))


def test_scaled_float8_weights_are_dequantized(flux, tmp_path):
    _, files, options = flux
    tensors, packed = (
        load_file(files / "t5xxl_fp16.safetensors"),
        {"scaled_fp8": torch.empty(0, dtype=torch.float8_e4m3fn)},
    )
    near = dict(tensors)
    for key, value in tensors.items():
        if value.ndim == 2 and "block" in key and "relative" not in key:
            scale = value.abs().max() / 448
            packed[key] = (value / scale).to(torch.float8_e4m3fn)
            packed[key.replace(".weight", ".scale_weight")] = scale.reshape(1)
            near[key] = packed[key].float() * scale
        else:
            packed[key] = value
    save_file(packed, tmp_path / "t5xxl_fp8_e4m3fn_scaled.safetensors")
    save_file(near, tmp_path / "near.safetensors")
    clip = str(files / "clip_l.safetensors")
    texts = [
        ClipT5(str(tmp_path / f"{name}.safetensors"), clip, **options)
        for name in ("t5xxl_fp8_e4m3fn_scaled", "near")
    ]
    same(*(text.encode(PROMPTS) for text in texts))
