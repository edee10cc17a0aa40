"""Bytes that are as they were written, or an error: sealed JSON, bounded reads, full disks."""

import json
import os
import struct

import pytest
import torch
from safetensors.torch import save_file

from tinyflux_pl.core import files
from tinyflux_pl.core.errors import CorruptCheckpoint, DiskFull, UntrustedFile


def test_sealed_json_round_trips_and_detects_any_flipped_bit(tmp_path):
    path, value = tmp_path / "x.json", {"a": [1, "ü"], "b": {"c": None}}
    files.write_sealed(path, value)
    assert files.read_sealed(path) == value
    original = path.read_bytes()
    for position in range(len(original)):
        path.write_bytes(
            original[:position] + bytes([original[position] ^ 0x20]) + original[position + 1 :]
        )
        with pytest.raises(ValueError):
            files.read_sealed(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"3",
        b"[" * 100_000,
        b'{"seal": 3}',
        b'{"a": NaN, "seal": "x"}',
        b" " * (files.JSON_LIMIT + 1),
    ],
)
def test_unsealed_json_raises_value_error(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(ValueError):
        files.read_sealed(tmp_path / "x.json")


def test_deeply_nested_json_does_not_crash_the_process(tmp_path):
    deep: object = 0
    for _ in range(900):
        deep = [deep]
    (tmp_path / "x.json").write_text(json.dumps({"a": deep, "seal": "x"}))
    with pytest.raises(ValueError):
        files.read_sealed(tmp_path / "x.json")


def header(
    length: int, text: bytes = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
) -> bytes:
    return struct.pack("<Q", length) + text + b"\0\0\0\0"


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", CorruptCheckpoint),
        (b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00.", UntrustedFile),
        (b"PK\x03\x04" + bytes(40), UntrustedFile),
        (b"<html>not what was asked for</html>", CorruptCheckpoint),
        (header(2**63), CorruptCheckpoint),
        (header(53), CorruptCheckpoint),
        (header(54)[:-1], CorruptCheckpoint),
        (
            header(54, b'{"w":{"dtype":"F9","shape":[1],"data_offsets":[0,4]}}  '[:54]),
            CorruptCheckpoint,
        ),
        (header(54, b'{"w":{"dtype":"F32","shape":[9],"data_offsets":[0,4]}}'), CorruptCheckpoint),
    ],
)
def test_tensors_are_read_only_from_complete_safetensors(tmp_path, content, error):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(error, match=r"safetensors") as caught:
        files.read_tensors(path)
    assert caught.value.cure and caught.value.where == str(path)


def test_a_header_length_is_checked_before_the_header_is_read(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(header(files.HEADER_LIMIT + 1))
    os.truncate(path, 2 * files.HEADER_LIMIT)
    with pytest.raises(CorruptCheckpoint, match="header claims"):
        files.read_tensors(path)


@pytest.mark.parametrize("count", [1, 5, 9, 40])
def test_headers_of_any_valid_length_are_read(tmp_path, count):
    """Also one whose length begins with the bytes of a pickle."""
    tensors = {f"{'x' * count}{i}": torch.ones(2) for i in range(count)}
    path = tmp_path / "x.safetensors"
    save_file(tensors, path)
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    path.write_bytes(
        struct.pack("<Q", 0x480) + raw[8 : 8 + length].ljust(0x480) + raw[8 + length :]
    )
    if length <= 0x480:
        assert path.read_bytes()[:2] == b"\x80\x04"
        assert files.read_tensors(path).keys() == tensors.keys()


@pytest.mark.parametrize(
    ("number", "message"), [(28, "disk is full"), (122, "quota"), (27, "ulimit -f")]
)
def test_a_full_disk_error_states_needed_and_free_bytes(tmp_path, monkeypatch, number, message):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1234})())
    with (
        pytest.raises(DiskFull) as caught,
        files.staged_file(tmp_path / "a" / "x", needed=5_000_000),
    ):
        raise OSError(number, "no")
    assert (
        message in caught.value.what
        and "needs 5,000,000 bytes, 1,234 bytes are free" in caught.value.what
    )
    assert not any((tmp_path / "a").iterdir())


def test_errors_other_than_a_full_disk_are_raised_unchanged(tmp_path):
    with pytest.raises(PermissionError), files.staged_file(tmp_path / "x", needed=1):
        raise PermissionError(13, "no")
