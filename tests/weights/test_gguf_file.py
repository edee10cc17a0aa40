"""GGUF files: values as the package gguf has them, keys of releases, hostile headers."""

import random
import struct
import sys

import pytest
import torch

from tests import gguf_files
from tinyflux_pl.core.errors import (
    CheckpointMismatch,
    CorruptCheckpoint,
    MissingDependency,
    TinyFluxError,
)
from tinyflux_pl.weights import gguf_file, load_release, tensor_files

gguf = pytest.importorskip("gguf")
KINDS = (
    *("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"),
    *("IQ4_NL", "IQ4_XS", "IQ3_S", "TQ2_0", "MXFP4"),
)
TEXT, ARRAY, UINT32 = 8, 9, 4


def some(rows=16, columns=512):
    torch.manual_seed(0)
    return {"blocks.0.weight": torch.randn(rows, columns), "blocks.0.bias": torch.randn(rows)}


@pytest.mark.parametrize("kind", KINDS)
def test_packed_values_are_those_of_the_package(kind, tmp_path):
    file = tmp_path / "a.gguf"
    meant = gguf_files.write(file, some(), kind)
    read = tensor_files.tensors(file)
    expected = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}
    for key, value in read.items():
        library = gguf.quants.dequantize(expected[key].data, expected[key].tensor_type)
        assert torch.equal(value, torch.tensor(library).reshape(value.shape)), key
        assert torch.equal(value, meant[key]) and bool(value.isfinite().all())
        assert tensor_files.outlines(file)[key].dtype == torch.float32
    assert float(read["blocks.0.weight"].std()) > 0
    assert tensor_files.shapes(file) == {key: tuple(v.shape) for key, v in some().items()}
    half = tensor_files.tensors(file, torch.bfloat16)
    assert half["blocks.0.weight"].dtype == torch.bfloat16
    assert torch.equal(half["blocks.0.weight"], meant["blocks.0.weight"].bfloat16())
    assert half["blocks.0.bias"].dtype == torch.float32


def test_numbers_that_are_not_packed_keep_their_type(tmp_path):
    value = torch.randn(4, 32)
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "flux")
    writer.add_tensor("half", value.half().numpy())
    writer.add_tensor("single", value.numpy())
    bits = value.bfloat16().view(torch.uint8).reshape(4, 64).numpy()
    writer.add_tensor("brain", bits, raw_dtype=gguf.GGMLQuantizationType.BF16)
    writer.add_tensor("one", value[0, :1].numpy())
    for step in ("write_header_to_file", "write_kv_data_to_file", "write_tensors_to_file", "close"):
        getattr(writer, step)()
    read = tensor_files.tensors(tmp_path / "a.gguf")
    assert torch.equal(read["half"], value.half()) and torch.equal(read["single"], value)
    assert torch.equal(read["brain"], value.bfloat16()) and read["one"].tolist() == [value[0, 0]]
    outlines = tensor_files.outlines(tmp_path / "a.gguf")
    assert {k: (v.dtype, v.shape) for k, v in outlines.items()} == {
        k: (v.dtype, v.shape) for k, v in read.items()
    }


def test_a_flattened_tensor_gets_its_shape_back(tmp_path):
    tensors = {"convolution.weight": torch.randn(8, 16, 3, 3), "narrow.weight": torch.randn(64, 4)}
    meant = gguf_files.write(tmp_path / "a.gguf", tensors, "Q6_K")
    read = tensor_files.tensors(tmp_path / "a.gguf")
    for key, value in tensors.items():
        assert read[key].shape == value.shape and torch.equal(read[key], meant[key])


def test_names_of_t5_are_those_of_the_package(tmp_path):
    """Keys of transformers -> its names by the package's own table, and back by ours."""
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.T5ENCODER, 2)
    layer = "encoder.block.1.layer"
    keys = [
        "shared.weight",
        "encoder.final_layer_norm.weight",
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
        f"{layer}.0.layer_norm.weight",
        *(f"{layer}.0.SelfAttention.{part}.weight" for part in "qkvo"),
        f"{layer}.1.layer_norm.weight",
        *(f"{layer}.1.DenseReluDense.{part}.weight" for part in ("wi_0", "wi_1", "wo")),
    ]
    stored = {names.get_name(key, (".weight",)): torch.randn(4, 32) for key in keys}
    gguf_files.write(tmp_path / "t5.gguf", stored, architecture="t5encoder")
    assert list(tensor_files.shapes(tmp_path / "t5.gguf")) == keys
    gate = names.get_name(f"{layer}.1.DenseReluDense.wi_0.weight", (".weight",))
    stored.pop(gate)
    gguf_files.write(tmp_path / "t5.gguf", stored, architecture="t5encoder")
    assert f"{layer}.1.DenseReluDense.wi.weight" in tensor_files.shapes(tmp_path / "t5.gguf")


def test_the_package_is_named_where_it_is_missing(tmp_path, monkeypatch):
    gguf_files.write(tmp_path / "a.gguf", some())
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingDependency, match=r"a\.gguf[\s\S]*pip install .*\[gguf\]"):
        load_release.find(str(tmp_path / "a.gguf"), None, "transformer")


def text(value):
    return struct.pack("<Q", len(value)) + value


def tensor(name=b"a", sides=(32, 4), kind=8, offset=0):
    return text(name) + struct.pack(f"<I{len(sides)}QIQ", len(sides), *sides, kind, offset)


def file_of(*tensors, entries=(), counts=None, version=3, data=bytes(4096)):
    num_tensors, num_entries = counts or (len(tensors), len(entries))
    head = b"GGUF" + struct.pack("<IQQ", version, num_tensors, num_entries)
    head += b"".join(entries) + b"".join(tensors)
    return head + bytes(-len(head) % 32) + data


def entry(kind, content, key=b"k"):
    return text(key) + struct.pack("<I", kind) + content


def test_a_small_header_without_fault_is_read(tmp_path):
    (tmp_path / "a.gguf").write_bytes(
        file_of(tensor(), entries=[entry(ARRAY, struct.pack("<IQ", TEXT, 1) + text(b"x"))])
    )
    assert gguf_file.outlines(tmp_path / "a.gguf")["a"].shape == (4, 32)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (file_of(tensor(), counts=(2**63, 0)), "two tensors"),
        (file_of(tensor(), counts=(1, 2**63)), "type|are left"),
        (file_of(entries=[entry(ARRAY, struct.pack("<IQ", UINT32, 2**60))]), "are left"),
        (file_of(entries=[entry(ARRAY, struct.pack("<IQ", TEXT, 2**60))]), "are left"),
        (file_of(entries=[entry(ARRAY, struct.pack("<IQ", ARRAY, 2**60))]), "array of type 9"),
        (file_of(entries=[entry(TEXT, struct.pack("<Q", 2**62))]), "are left"),
        (file_of(entries=[entry(77, b"")]), "entry of type 77"),
        (file_of(entries=[entry(UINT32, struct.pack("<I", 3), b"general.alignment")]), "aligned"),
        (file_of(tensor(sides=(2**62, 2**62))), "not inside"),
        (file_of(tensor(sides=(32, 0))), "not inside"),
        (file_of(tensor(sides=(32,) * 5)), "5 sides"),
        (file_of(tensor(sides=(2**32 - 1,) * 3)), "not inside"),
        (file_of(tensor(offset=2**40)), "not inside"),
        (file_of(tensor(offset=7)), "not inside"),
        (file_of(tensor(offset=4096)), "more than there are"),
        (file_of(tensor(sides=(32, 400))), "more than there are"),
        (file_of(tensor(), tensor()), "two tensors"),
        (file_of(tensor(sides=(31, 4))), "in blocks of 32"),
        (file_of(*(tensor(b"%d" % k, (32, 100)) for k in range(9))), "more than there are"),
        (file_of(tensor(b"\xff\xfe")), "no text"),
        (
            file_of(
                tensor(),
                entries=[
                    entry(
                        ARRAY,
                        struct.pack("<IQ2I", UINT32, 2, 5, 5),
                        b"comfy.gguf.orig_shape.a",
                    )
                ],
            ),
            "said to have",
        ),
        (b"GGUF", "are left"),
    ],
)
def test_a_header_that_claims_what_is_not_there_is_refused(content, says, tmp_path):
    (tmp_path / "a.gguf").write_bytes(content)
    for read in (tensor_files.outlines, tensor_files.tensors, tensor_files.require_weights):
        with pytest.raises(CorruptCheckpoint, match=rf"{says}[\s\S]*a\.gguf[\s\S]*fetch it again"):
            read(tmp_path / "a.gguf")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (file_of(tensor(kind=9)), "GGUF's type 9[^0-9][\\s\\S]*Q8_0"),  # the package has no Q8_1
        (file_of(tensor(kind=4711)), "GGUF's type 4711"),
        (file_of(tensor(), version=1), "version 1"),
        (file_of(tensor(), version=3 << 24), "byte order"),
    ],
)
def test_a_type_or_version_without_a_reader_is_refused_by_name(content, says, tmp_path):
    (tmp_path / "a.gguf").write_bytes(content)
    with pytest.raises(CheckpointMismatch, match=says):
        tensor_files.outlines(tmp_path / "a.gguf")


def test_a_cut_or_altered_file_ends_in_an_error_of_three_lines_or_is_read(tmp_path):
    file = tmp_path / "a.gguf"
    gguf_files.write(file, some(4, 64))
    complete = file.read_bytes()
    header = complete[: len(complete) - 1024]
    dice = random.Random(0)
    contents = [complete[:length] for length in range(4, len(header), 7)]
    for _ in range(300):
        altered = bytearray(complete)
        for _ in range(dice.choice((1, 1, 4))):
            altered[dice.randrange(4, len(header))] = dice.choice((0, 255, dice.randrange(256)))
        contents.append(bytes(altered))
    refused = 0
    for content in contents:
        file.write_bytes(content)
        try:
            tensor_files.tensors(file)
        except TinyFluxError as error:
            refused += 1
            assert len(str(error).splitlines()) == 3
    assert refused > len(contents) // 3
