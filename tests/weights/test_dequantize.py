"""Quantized weights: float8 with and without scales is read, packed formats are named."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from tinyflux_pl.core.errors import (
    CheckpointMismatch,
    ConfigError,
    CorruptCheckpoint,
)
from tinyflux_pl.weights.dequantize import plain

FP8 = torch.float8_e4m3fn
INT8 = torch.ones(4, 4, dtype=torch.int8)
ROTATED = {"format": "int8_tensorwise", "rotated": True}


def matrix(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)) * 1e-3


def scaled(weight, scale):
    return (weight / scale).to(FP8)


def header_bytes(text):
    return torch.tensor(list(json.dumps(text).encode()), dtype=torch.uint8)


def test_unscaled_float8_is_cast_to_its_values(tmp_path):
    weight = (matrix(4, 6) * 1e3).to(FP8)
    save_file({"a.weight": weight}, tmp_path / "f.safetensors")
    stored = plain(load_file(tmp_path / "f.safetensors"), torch.bfloat16, "f")
    assert torch.equal(stored["a.weight"].float(), weight.float())


@pytest.mark.parametrize("name", ["scale_weight", "weight_scale"])
@pytest.mark.parametrize("rows", [False, True])
def test_scaled_float8_is_multiplied_by_its_scale(name, rows):
    weight = matrix(4, 6)
    scale = weight.abs().amax(1, keepdim=True) / 448 if rows else weight.abs().max() / 448
    stored = {
        "a.weight": scaled(weight, scale),
        f"a.{name}": scale,
        "a.bias": torch.ones(4),
        "a.scale_input": torch.ones(1),
        "a.input_scale": torch.ones(()),
        "a.comfy_quant": header_bytes({"format": "float8_e4m3fn"}),
        "scaled_fp8": torch.empty(2, dtype=FP8),
    }
    dequantized = plain(stored, torch.float32, "f")
    assert (
        dequantized.keys() == {"a.weight", "a.bias"}
        and dequantized["a.weight"].dtype == torch.float32
    )
    torch.testing.assert_close(
        dequantized["a.weight"], stored["a.weight"].float() * scale, rtol=0, atol=0
    )
    # and not 448 / max times too large
    torch.testing.assert_close(dequantized["a.weight"], weight, rtol=0.07, atol=1e-6)
    assert plain(stored, torch.bfloat16, "f")["a.weight"].dtype == torch.bfloat16


@pytest.mark.parametrize("rows", [False, True])
def test_int8_is_multiplied_by_its_scale(rows):
    weight = matrix(4, 6)
    scale = weight.abs().amax(1) / 127 if rows else weight.abs().max() / 127
    packed = (weight / scale.reshape(-1, 1)).round().to(torch.int8)
    dequantized = plain({"a.weight": packed, "a.weight_scale": scale}, torch.float32, "f")
    assert dequantized.keys() == {"a.weight"}
    torch.testing.assert_close(
        dequantized["a.weight"], packed.float() * scale.reshape(-1, 1), rtol=0, atol=0
    )
    torch.testing.assert_close(
        dequantized["a.weight"], weight, rtol=0, atol=float(weight.abs().max()) / 127
    )


@pytest.mark.parametrize(
    ("lost", "says"),
    [
        (["a.scale_weight"], r"1 of 2 float8 matrices lack their scale: a\.weight"),
        (["a.scale_weight", "b.scale_weight"], r"2 of 2 float8 matrices lack their scale"),
        (
            ["a.scale_weight", "b.scale_weight", "a.weight", "b.weight"],
            "announces scales, but there are none",
        ),
    ],
)
def test_missing_scales_are_refused(lost, says):
    stored = {f"{name}.weight": scaled(matrix(4, 6), 1e-5) for name in "ab"}
    stored |= {f"{name}.scale_weight": torch.tensor(1e-5) for name in "ab"}
    stored |= {"scaled_fp8": torch.empty(0, dtype=FP8), "a.bias": torch.zeros(4)}
    assert plain(stored, torch.float32, "f").keys() == {"a.weight", "b.weight", "a.bias"}
    with pytest.raises(CheckpointMismatch, match=rf"{says}[\s\S]*bfloat16"):
        plain({key: value for key, value in stored.items() if key not in lost}, torch.float32, "f")


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32])
def test_integer_weights_without_a_scale_are_refused(dtype):
    with pytest.raises(CheckpointMismatch, match=r"a\.weight is packed as torch\.u?int"):
        plain(
            {"a.weight": torch.ones(4, 4, dtype=dtype), "b.weight": torch.ones(4, 4)},
            torch.float32,
            "f",
        )
    counted = {"position_ids": torch.arange(4)[None], "b.weight": torch.ones(4, 4)}
    assert plain(counted, torch.float32, "f").keys() == counted.keys()


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_that_is_not_positive_is_refused(scale):
    stored = {"a.weight": torch.ones(4, 4).to(FP8), "a.weight_scale": torch.tensor(scale)}
    with pytest.raises(CorruptCheckpoint, match=r"a scale of a\.weight is not positive"):
        plain(stored, torch.float32, "f")


def test_shapes_of_dequantized_weights_follow_from_headers():
    stored = {
        "a.weight": scaled(matrix(4, 6), 1e-5),
        "a.scale_weight": torch.tensor(1e-5),
        "a.bias": torch.ones(4),
    }
    outline = {key: value.to("meta") for key, value in stored.items()}
    dequantized = plain(outline, torch.float16, "f")
    assert {key: (value.shape, value.is_meta) for key, value in dequantized.items()} == {
        "a.weight": ((4, 6), True),
        "a.bias": ((4,), True),
    }
    with pytest.raises(CheckpointMismatch, match="a scale without a weight"):
        plain(
            {key: value for key, value in outline.items() if key != "a.weight"}, torch.float16, "f"
        )


def test_all_zero_weights_are_refused_as_an_interrupted_download():
    zeros = {
        "a.weight": torch.zeros(4, 4),
        "b.weight": torch.zeros(4, 4).to(FP8),
        "c.bias": torch.ones(4),
    }
    with pytest.raises(
        CorruptCheckpoint, match=r"2 of 2 matrices hold zeros alone[\s\S]*fetch it again"
    ):
        plain(zeros, torch.float32, "f")
    with pytest.raises(CorruptCheckpoint, match=r"1 of 2 matrices"):
        plain({"a.weight": torch.ones(4, 4), "b.weight": torch.zeros(4, 4)}, torch.float32, "f")
    few = {"a.weight": torch.ones(4, 4), "b.weight": torch.zeros(2, 4), "c.bias": torch.zeros(4)}
    # a layer that begins at zero is a layer
    assert plain(few, torch.float32, "f").keys() == few.keys()


def test_scale_parameters_of_norms_are_not_quantization_scales():
    stored = {"norm.query_norm.scale": torch.ones(4), "x.weight": torch.ones(4, 4)}
    assert plain(stored, torch.float32, "f") == stored


def test_weights_that_overflow_half_precision_are_refused():
    with pytest.raises(ConfigError, match=r"a\.weight[\s\S]*bfloat16"):
        plain({"a.weight": torch.tensor([1.0, 7e4])}, torch.float16, "f")
    assert plain({"a.weight": torch.tensor([6e4])}, torch.float16, "f")["a.weight"].isfinite().all()
