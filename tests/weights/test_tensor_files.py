"""Formats of packed layers in a header."""

import json

import pytest
import torch
from safetensors.torch import save_file

from tinyflux_pl.core.errors import CheckpointMismatch, CorruptCheckpoint
from tinyflux_pl.weights import tensor_files
from tinyflux_pl.weights.dequantize import plain
from tinyflux_pl.weights.key_prefixes import NETWORK, network_tensors

FP8 = torch.float8_e4m3fn


def stored(file, formats, prefix=""):
    tensors = {"a.weight": torch.ones(4, 4).to(FP8), "a.weight_scale": torch.tensor(0.5)}
    tensors = {prefix + key: value for key, value in tensors.items()}
    text = formats if isinstance(formats, str) else json.dumps({"layers": formats})
    save_file(tensors, file, {"_quantization_metadata": text})
    return file


@pytest.mark.parametrize("read", [tensor_files.tensors, tensor_files.outlines])
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_formats_in_the_header_count_like_format_tensors(read, prefix, tmp_path):
    fine = {f"{prefix}a": {"format": "float8_e4m3fn", "full_precision_matrix_mult": True}}
    read_as = read(stored(tmp_path / "a.safetensors", fine, prefix))
    network = plain(network_tensors(read_as, NETWORK, "f"), torch.float32, "f")
    assert network.keys() == {"a.weight"}
    if read is tensor_files.tensors:
        assert network["a.weight"].unique().tolist() == [0.5]
    for entry, says in (
        ({"format": "mxfp8"}, "weights packed as mxfp8"),
        ({"format": "int8_tensorwise", "rotated": True}, "int8_tensorwise with rotated"),
        (3, "what its comfy_quant does not say"),
    ):
        read_as = read(stored(tmp_path / "b.safetensors", {f"{prefix}a": entry}, prefix))
        with pytest.raises(CheckpointMismatch, match=says):
            plain(network_tensors(read_as, NETWORK, "f"), torch.float32, "f")


@pytest.mark.parametrize("text", ["{", "[]", '{"layers": 3}', "{}"])
def test_a_header_without_a_description_of_layers_is_refused(text, tmp_path):
    with pytest.raises(CorruptCheckpoint, match=r"_quantization_metadata[\s\S]*a\.safetensors"):
        tensor_files.outlines(stored(tmp_path / "a.safetensors", text))
