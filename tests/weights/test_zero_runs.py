"""Runs of zeros that a download left are refused wherever they lie; tensors of zeros are read."""

import pytest
import torch
from safetensors.torch import save_file

from tests import gguf_files
from tinyflux_pl.core.errors import CorruptCheckpoint
from tinyflux_pl.weights import tensor_files

MIB = 2**20
NAMES = [f"{i:02d}.weight" for i in range(24)]


def network(**changed):
    """24 matrices of 256 KiB of ones, 6 MiB in all, with those of `changed` in their places."""
    return {name: torch.ones(64, 1024) for name in NAMES} | changed


def saved(file, tensors):
    save_file(tensors, file)
    return file


def with_gap(file, start, length):
    """The file with zeros from byte `start` on."""
    content = bytearray(file.read_bytes())
    end = min(len(content), start + length)
    content[start:end] = bytes(end - start)
    file.write_bytes(content)
    return file


@pytest.mark.parametrize(
    ("start", "length"),
    [
        (4 * MIB, 8 * MIB),  # the end is missing
        (5 * MIB - 4096, 8 * MIB),
        (MIB, MIB + 4096),  # a block inside
        (2 * MIB + 4096, 3 * MIB),
    ],
)
def test_a_hole_is_refused_at_the_end_and_inside(start, length, tmp_path):
    file = saved(tmp_path / "a.safetensors", network())
    assert len(tensor_files.outlines(file)) == 24
    with pytest.raises(
        CorruptCheckpoint, match=r"zeros from byte[\s\S]*inside a row[\s\S]*fetch it"
    ):
        tensor_files.outlines(with_gap(file, start, length))


def test_tensors_of_zeros_are_read_at_the_end_and_inside(tmp_path):
    """As of a control branch before its first step, whose zero convolutions come last."""
    zero = torch.zeros(512, 1024)
    for names in (NAMES[-2:], NAMES[3:4], NAMES[:2]):
        changed = {name: zero.clone() for name in names}
        file = saved(tmp_path / f"{names[0]}.safetensors", network(**changed))
        assert len(tensor_files.outlines(file)) == 24


def test_rows_of_zeros_are_read(tmp_path):
    """As of words that a vocabulary has room for."""
    words = torch.ones(1000, 1024)
    words[300:900] = 0
    assert tensor_files.outlines(saved(tmp_path / "a.safetensors", {"words.weight": words}))


@pytest.mark.parametrize("name", ["a.to_q.weight", "h.0.attn.qkv.weight", "q_proj.weight"])
def test_an_attention_matrix_of_zeros_is_refused(name, tmp_path):
    zero = torch.zeros(512, 1024)
    with pytest.raises(CorruptCheckpoint, match=rf"are all of {name}"):
        tensor_files.outlines(saved(tmp_path / "a.safetensors", network(**{name: zero})))
    assert tensor_files.outlines(
        saved(tmp_path / "b.safetensors", network(**{"a.to_out.weight": zero}))
    )


def test_a_hole_in_gguf_is_refused(tmp_path):
    torch.manual_seed(0)
    file = tmp_path / "a.gguf"
    gguf_files.write(
        file, {name: torch.randn(64, 1024) for name in [f"{i:02d}.weight" for i in range(64)]}
    )
    assert len(tensor_files.outlines(file)) == 64
    with pytest.raises(CorruptCheckpoint, match="inside a row"):
        tensor_files.outlines(with_gap(file, 2 * MIB + 512, MIB + 4096))


def test_a_small_file_may_end_in_zeros(tmp_path):
    save_file({"a.bias": torch.zeros(1024)}, tmp_path / "a.safetensors")
    assert tensor_files.outlines(tmp_path / "a.safetensors").keys() == {"a.bias"}
