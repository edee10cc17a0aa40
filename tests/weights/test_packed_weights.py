"""Packed weights without a defined meaning, and what is no network, are refused by name."""

import pytest
import torch

from tests.weights.test_dequantize import FP8, INT8, ROTATED, header_bytes
from tinyflux_pl.core.errors import (
    CheckpointMismatch,
    UntrustedFile,
)
from tinyflux_pl.core.files import require_tensor_file
from tinyflux_pl.weights.dequantize import plain, require_plain_config


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        (
            {"a.weight": torch.ones(4, 4).to(FP8), "a.weight_scale": torch.ones(2, 2)},
            r"scale of shape \(2, 2\)",
        ),
        (
            {"a.weight": torch.ones(4, 4, dtype=torch.uint8), "a.weight_scale": torch.ones(1)},
            "uint8",
        ),
        (
            {
                "a.weight": torch.ones(4, 4).to(FP8),
                "a.weight_scale": torch.ones(4, dtype=torch.uint8),
            },
            "scale of uint8",
        ),
        (
            {
                "a.weight": INT8,
                "a.weight_scale": torch.ones(4),
                "a.weight_zero_point": torch.zeros(4),
            },
            "zero points",
        ),
        (
            {
                "a.weight": INT8,
                "a.weight_scale": torch.ones(4),
                "a.comfy_quant": header_bytes(ROTATED),
            },
            "int8.* with rotated",
        ),
        (
            {"a.weight": INT8, "a.comfy_quant": header_bytes({"format": "int8_tensorwise"})},
            "without a scale",
        ),
        (
            {
                "a.weight_packed": torch.ones(4, 1, dtype=torch.int32),
                "a.weight_scale": torch.ones(4),
            },
            "compressed-tensors",
        ),
        (
            {"a.qkv.weight": torch.ones(6, 4).to(FP8), "a.qkv.weight_scale": torch.ones(3)},
            r"scale of shape \(3,\)",
        ),
        (
            {"a.weight": torch.ones(4, 6).to(FP8), "a.weight_scale": torch.ones(6)},
            r"scale of shape \(6,\)",
        ),
        (
            {"a.qkv.weight": torch.ones(6, 4).to(FP8), "a.q.scale_weight": torch.ones(1)},
            "a scale without a weight",
        ),
        (
            {"a.weight": INT8, "a.scale_weight": torch.ones(1), "a.weight_scale": torch.ones(1)},
            "two scales",
        ),
        (
            {"a.weight": torch.ones(4, 4).to(FP8), "a.weight_scale_inv": torch.ones(1, 1)},
            "scales of blocks",
        ),
        (
            {"a.weight": torch.ones(4, 2, dtype=torch.uint8), "a.weight_scale_2": torch.ones(1)},
            "NVFP4",
        ),
        ({"a.weight": torch.ones(4, 4).to(FP8), "a.pre_quant_scale": torch.ones(4)}, "smoothed"),
        (
            {"a.weight": torch.ones(8, 1, dtype=torch.uint8), "a.weight.absmax": torch.ones(1)},
            "packed by bitsandbytes",
        ),
        (
            {"a.qweight": torch.ones(4, 4, dtype=torch.int32), "a.wscales": torch.ones(4)},
            "SVDQuant",
        ),
        ({"a.weight._data": torch.ones(4, 4).to(FP8), "a.weight._scale": torch.ones(4)}, "quanto"),
        (
            {
                "a.weight": torch.ones(4, 4).to(FP8),
                "a.comfy_quant": header_bytes({"format": "mxfp8"}),
            },
            "mxfp8",
        ),
        (
            {
                "a.weight": torch.ones(4, 4).to(FP8),
                "a.comfy_quant": torch.ones(3, dtype=torch.uint8),
            },
            "comfy_quant",
        ),
        (
            {
                "a.weight": torch.ones(1),
                "a.comfy_quant": torch.full((4096,), ord("["), dtype=torch.uint8),
            },
            "comfy_quant",
        ),
        (
            {"a.weight": torch.ones(()).to(FP8), "a.weight_scale": torch.ones(3)},
            r"scale of shape \(3,\)",
        ),
    ],
)
def test_packed_weights_are_refused_by_name(tensors, says):
    with pytest.raises(CheckpointMismatch, match=rf"{says}[\s\S]*file\.safetensors[\s\S]*bfloat16"):
        plain(tensors, torch.bfloat16, "file.safetensors")


@pytest.mark.parametrize(
    "keys",
    [
        [
            "lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight",
            "lora_unet_double_blocks_0_img_attn_qkv.alpha",
        ],
        [
            "transformer.transformer_blocks.0.attn.to_q.lora_A.weight",
            "transformer.transformer_blocks.0.attn.to_q.lora_B.weight",
        ],
        ["diffusion_model.double_blocks.0.img_attn.qkv.lora_A.weight"],
        ["double_blocks.0.processor.proj_lora1.down.weight"],
        ["lycoris_blocks_0.hada_w1_a", "lycoris_blocks_0.lokr_w1"],
    ],
)
def test_a_lora_file_is_refused_as_a_lora(keys):
    with pytest.raises(
        CheckpointMismatch, match=rf"{len(keys)} of {len(keys)} tensors belong to a LoRA"
    ):
        plain({key: torch.ones(1) for key in keys}, torch.bfloat16, "f")


def test_a_stray_lora_key_in_a_network_is_kept_for_the_key_report():
    tensors = {
        "a.weight": torch.ones(1),
        "b.weight": torch.ones(1),
        "a.lora_A.weight": torch.ones(1),
    }
    assert plain(tensors, torch.float32, "f").keys() == tensors.keys()


@pytest.mark.parametrize("method", ["torchao", "fp8", "gptq"])
def test_a_folder_of_packed_weights_is_recognised_by_its_config(method, tmp_path):
    with pytest.raises(CheckpointMismatch, match=rf"packed by {method}[\s\S]*bfloat16"):
        require_plain_config({"quantization_config": {"quant_method": method}}, tmp_path)
    require_plain_config({"hidden_size": 1}, tmp_path)


def test_gguf_and_pickle_files_are_refused_by_format(tmp_path):
    file = tmp_path / "flux1-dev-Q4_K_S.gguf"
    file.write_bytes(b"GGUF\x03\0\0\0" + bytes(64))
    with pytest.raises(CheckpointMismatch, match=r"GGUF[\s\S]*bfloat16"):
        require_tensor_file(file)
    torch.save({"a": torch.ones(1)}, tmp_path / "v1.ckpt")
    with pytest.raises(UntrustedFile, match=r"^a pickle; it was not opened"):
        require_tensor_file(tmp_path / "v1.ckpt")
    (tmp_path / "v1.ckpt").rename(tmp_path / "v1.safetensors")
    with pytest.raises(UntrustedFile, match="a pickle under the name of safetensors"):
        require_tensor_file(tmp_path / "v1.safetensors")
