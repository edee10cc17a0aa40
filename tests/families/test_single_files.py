"""Complete checkpoints in one file sample as the folder of the release."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests import original_layouts, releases_flux1, releases_stability
from tests.app.runs import run
from tests.families import drawing
from tests.original_layouts import under
from tests.weights.flux1_original import to_original
from tinyflux_pl.core.errors import HubError, TinyFluxError

HEIGHT, WIDTH = 32, 48
SHORT = ("sampler.steps=2",)
SDXL = {
    "input_blocks.0.0.weight": torch.ones(320, 4, 3, 3),
    "label_emb.0.0.weight": torch.ones(1280, 2816),
}
SDXL = {f"model.diffusion_model.{key}": value for key, value in SDXL.items()}  # of its first layers
UNSAID = ("architectures", "dtype", "transformers_version", "model_type")


def structure_overrides(key, folder):
    """The config.json of a folder as command line overrides for a file."""
    config = json.loads((folder / "config.json").read_text())
    sizes = {
        k: v
        for k, v in config.items()
        if not k.startswith("_") and k not in UNSAID and v is not None
    }
    return [
        f"++{key}.{k}={json.dumps(v).replace(chr(34), '')}"
        for k, v in sizes.items()
        if not isinstance(v, dict)
    ]


def structures(folder, network, **encoders):
    """Everything that a tiny release differs in from the published one."""
    lines = structure_overrides("model.structure", folder / network) + structure_overrides(
        "codec.structure", folder / "vae"
    )
    return [
        *lines,
        *(
            line
            for key, name in encoders.items()
            for line in structure_overrides(f"text.structures.{key}", folder / name)
        ),
    ]


def image(model, weights, *overrides):
    return drawing.draw(drawing.project_pipeline(model, weights, HEIGHT, WIDTH, *SHORT, *overrides))


def alone(folder, name, tensors):
    """The file, and the release's tokenizers in a folder of their own."""
    folder.mkdir()
    save_file(tensors, folder / name)
    return folder / name


def test_sdxl_in_one_file_equals_its_folder(tmp_path):
    pipeline = releases_stability.sdxl(tmp_path / "release")
    extra = {
        "model_ema.diffusion_modelinput_blocks00weight": torch.ones(1),
        "optimizer.state.0.step": torch.ones(1),
    }
    file = alone(
        tmp_path / "file",
        "sd_xl_base_1.0.safetensors",
        {**original_layouts.sdxl_file(pipeline), **extra},
    )
    small = structures(tmp_path / "release", "unet", first="text_encoder", second="text_encoder_2")
    words = f"text.tokenizer='{tmp_path / 'release'}'"
    expected = image("sdxl", tmp_path / "release")
    torch.testing.assert_close(image("sdxl", file, *small, words), expected, rtol=0, atol=1e-5)
    with pytest.raises(HubError, match=r"no tokenizer[\s\S]*text\.tokenizer=FOLDER"):
        image("sdxl", file, *small)
    shutil.move(file, tmp_path / "release")  # where the repository itself has it
    torch.testing.assert_close(
        image("sdxl", tmp_path / "release" / file.name, *small), expected, rtol=0, atol=1e-5
    )
    torch.testing.assert_close(image("sdxl", tmp_path / "release"), expected, rtol=0, atol=1e-5)


def test_sd35_in_one_file_equals_its_folder(tmp_path):
    pipeline = releases_stability.sd35(tmp_path / "release")
    with torch.no_grad():  # as the release's is, which its files therefore leave out
        projection = pipeline.text_encoder.text_projection.weight
        projection.copy_(torch.eye(*projection.shape))
    pipeline.text_encoder.save_pretrained(tmp_path / "release" / "text_encoder")
    file = alone(tmp_path / "file", "sd3.5_large.safetensors", original_layouts.sd35_file(pipeline))
    encoders = dict(first="text_encoder", second="text_encoder_2", t5="text_encoder_3")
    small = [*structures(tmp_path / "release", "transformer", **encoders), "text.t5_length=16"]
    built = image("sd35_large", file, *small, f"text.tokenizer='{tmp_path / 'release'}'")
    expected = image("sd35_large", tmp_path / "release", "text.t5_length=16")
    torch.testing.assert_close(built, expected, rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def flux(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flux1")
    return releases_flux1.flux1(folder)


def fp8(tensors, scaled):
    """Block matrices in float8, with scales if requested, and the values that they represent."""
    packed, meant = {}, dict(tensors)
    for key, value in tensors.items():
        inside = value.ndim == 2 and "_blocks." in key
        scale = value.abs().max() / 448 if scaled and inside else torch.ones(())
        packed[key] = (value / scale).to(torch.float8_e4m3fn) if inside else value
        meant[key] = packed[key].float() * scale
        if scaled and inside:
            packed[key.replace(".weight", ".scale_weight")] = scale
            packed[key.replace(".weight", ".scale_input")] = torch.ones(())
    return {
        **packed,
        **({"scaled_fp8": torch.empty(0, dtype=torch.float8_e4m3fn)} if scaled else {}),
    }, meant


@pytest.mark.parametrize("scaled", [False, True])
def test_flux1_in_one_float8_file_equals_its_dequantized_folder(flux, tmp_path, scaled):
    from diffusers import AutoencoderKL
    from transformers import CLIPTextModel, T5EncoderModel

    net = to_original(load_file(flux / "transformer" / "diffusion_pytorch_model.safetensors"))
    packed, meant = fp8(net, scaled)
    clip, t5 = (
        cls.from_pretrained(flux / name)
        for cls, name in ((CLIPTextModel, "text_encoder"), (T5EncoderModel, "text_encoder_2"))
    )
    vae = AutoencoderKL.from_pretrained(flux / "vae", low_cpu_mem_usage=False)
    checkpoint = {
        **under("model.diffusion_model.", packed),
        **under("text_encoders.clip_l.transformer.", original_layouts.clip_published(clip)),
        **under("text_encoders.t5xxl.transformer.", t5.state_dict()),
        **under("vae.", original_layouts.vae_original(vae.state_dict())),
    }
    file = alone(tmp_path / "file", "flux1-dev-fp8.safetensors", checkpoint)
    small = structures(flux, "transformer", t5="text_encoder_2", clip="text_encoder")
    built = image("flux1_dev", file, *small, "text.length=16", f"text.tokenizer='{flux}'")
    release = shutil.copytree(flux, tmp_path / "release")
    save_file(meant, tmp_path / "meant.safetensors")
    rest = (*small, "text.length=16", f"release.weights='{release}'")
    torch.testing.assert_close(
        built, image("flux1_dev", tmp_path / "meant.safetensors", *rest), rtol=0, atol=1e-5
    )
    # float8 is not exact
    assert float((built - image("flux1_dev", release, "text.length=16")).abs().max()) > 1e-5


def test_generate_accepts_one_file(tmp_path):
    pipeline = releases_stability.sdxl(tmp_path / "release")
    file = alone(
        tmp_path / "file", "sd_xl_base_1.0.safetensors", original_layouts.sdxl_file(pipeline)
    )
    small = structures(tmp_path / "release", "unet", first="text_encoder", second="text_encoder_2")
    overrides = (
        "model=sdxl",
        "prompt='a red circle'",
        "height=32",
        "width=48",
        *SHORT,
        *drawing.EXACT,
    )
    run(
        "generate",
        tmp_path,
        *overrides,
        f"model.weights='{tmp_path / 'release'}'",
        f"output='{tmp_path / 'a'}'",
    )
    where = (
        f"model.weights='{file}'",
        f"text.tokenizer='{tmp_path / 'release'}'",
        f"output='{tmp_path / 'b'}'",
    )
    run("generate", tmp_path, *overrides, *small, *where)
    first, second = (
        np.asarray(Image.open(tmp_path / run_name / "image_0000.png"), int) for run_name in "ab"
    )
    # of 255
    assert first.shape == (32, 48, 3) and first.std() > 1 and abs(first - second).max() <= 1


def test_a_release_with_only_an_fp16_variant_equals_its_values_in_fp32(tmp_path):
    pipeline = releases_stability.sdxl(tmp_path / "release")
    shutil.rmtree(tmp_path / "release")
    pipeline.to(torch.float16)
    pipeline.save_pretrained(tmp_path / "fp16", variant="fp16")
    pipeline.to(torch.float32)
    pipeline.save_pretrained(tmp_path / "plain")
    assert not list((tmp_path / "fp16").rglob("model.safetensors"))
    expected = image("sdxl", tmp_path / "plain")
    torch.testing.assert_close(image("sdxl", tmp_path / "fp16"), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        (
            {"lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight": torch.ones(1)},
            r"1 of 1 tensors belong to a LoRA",
        ),
        ({"double_blocks.0.img_attn.qkv.weight._data": torch.ones(1)}, "packed by quanto"),
        (
            {"double_blocks.0.img_attn.qkv.weight": torch.ones(1)},
            r"holds no autoencoder[\s\S]*release\.weights=",
        ),
        (SDXL, r"this file, of SDXL \(model=sdxl\), holds no autoencoder"),
        (
            {**SDXL, "first_stage_model.decoder.conv_in.weight": torch.ones(1)},
            r"of SDXL \(model=sdxl\), holds another autoencoder[\s\S]*do: +model=sdxl",
        ),
    ],
)
def test_an_unusable_file_is_refused_before_weights_are_read(tmp_path, tensors, says):
    save_file(tensors, tmp_path / "file.safetensors")
    with pytest.raises(TinyFluxError, match=says):
        image("flux1_dev", tmp_path / "file.safetensors")


@pytest.mark.parametrize(
    ("name", "head", "says"), [("v1.ckpt", b"PK\x03\x04", "a pickle"), ("q4.gguf", b"GGUF", "GGUF")]
)
def test_a_file_of_another_format_is_refused_by_format(tmp_path, name, head, says):
    (tmp_path / name).write_bytes(head + bytes(64))
    with pytest.raises(TinyFluxError, match=rf"{says}[\s\S]*do:"):
        image("sdxl", tmp_path / name)


def test_a_bare_network_uses_the_other_parts_of_its_release(flux):
    network, expected = flux / "transformer", image("flux1_dev", flux, "text.length=16")
    built = image("flux1_dev", network, "text.length=16", f"release.weights='{flux}'")
    torch.testing.assert_close(built, expected, rtol=0, atol=1e-5)
    with pytest.raises(HubError, match=r"release\.weights=FOLDER"):
        image("flux1_dev", network, "text.length=16")
