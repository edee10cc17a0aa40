"""The header of a GGUF file; every length is checked against the file's size.

Layout: "GGUF", version, counts of tensors and of entries; entries (key, type, value); tensors
(name, sides from the innermost outwards, type, offset); padding; numbers. Integers are
little-endian.
"""

from __future__ import annotations

import math
import os
import struct
from dataclasses import dataclass, field
from pathlib import Path

from tinyflux_pl.core.errors import CheckpointMismatch, CorruptCheckpoint
from tinyflux_pl.core.files import HEADER_LIMIT

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MOST_SIDES = 4
MAX_STORED = 16  # numbers of an array that are kept
SCALARS = dict(enumerate(("B", "b", "H", "h", "I", "i", "f", "?", "", "", "Q", "q", "d")))
TEXT, ARRAY = 8, 9
Value = str | int | float | bool | list[int | float | bool]


@dataclass(frozen=True)
class StoredTensor:
    """Shape as PyTorch counts it, number of the type, and place of the first byte in the file."""

    shape: tuple[int, ...]
    kind: int
    start: int


@dataclass
class GGUFHeader:
    """Entries that are short, and tensors by name in the order of the file."""

    entries: dict[str, Value] = field(default_factory=dict)
    tensors: dict[str, StoredTensor] = field(default_factory=dict)


def read(path: str | Path) -> GGUFHeader:
    """The header of a file that begins with MAGIC.

    CorruptCheckpoint for lengths, counts and offsets that the file does not hold,
    CheckpointMismatch for another version of the format.
    """
    with open(path, "rb") as handle:
        content, size = handle.read(HEADER_LIMIT), os.fstat(handle.fileno()).st_size
    try:
        return _parsed(_Bytes(content, str(path)), size, str(path))
    except UnicodeDecodeError as error:
        raise corrupt(path, "a name in it is no text") from error


def corrupt(path: str | Path, why: str) -> CorruptCheckpoint:
    """The error for an inconsistent file."""
    what = f"not a complete GGUF file: {why}"
    return CorruptCheckpoint(what, where=str(path), cure="fetch it again")


class _Bytes:
    """The beginning of a file, read in order; CorruptCheckpoint where it ends too early."""

    def __init__(self, content: bytes, path: str) -> None:
        self.content, self.path, self.position = content, path, len(MAGIC)

    def take(self, length: int) -> bytes:
        end = self.position + length
        if end > len(self.content):
            left = len(self.content) - self.position
            raise corrupt(self.path, f"its header claims {length:,} bytes where {left:,} are left")
        taken = self.content[self.position : end]
        self.position = end
        return taken

    def number(self, form: str) -> int:
        return struct.unpack(f"<{form}", self.take(struct.calcsize(f"<{form}")))[0]

    def text(self) -> str:
        return self.take(self.number("Q")).decode()


def _parsed(source: _Bytes, size: int, path: str) -> GGUFHeader:
    version = source.number("I")
    if version not in VERSIONS:
        what = f"GGUF of version {version if version < 2**16 else 'another byte order'}"
        cure = "convert it to version 3, or give the release as safetensors"
        raise CheckpointMismatch(what, where=path, cure=cure)
    num_tensors, num_entries = source.number("Q"), source.number("Q")
    header = GGUFHeader()
    # each turn takes bytes, so that a false count ends where the bytes do
    for _ in range(num_entries):
        key = source.text()
        value = _value(source, source.number("I"))
        if value is not None:
            header.entries[key] = value
    infos: dict[str, tuple[tuple[int, ...], int, int]] = {}
    for _ in range(num_tensors):
        name, sides = source.text(), source.number("I")
        if name in infos:
            raise corrupt(path, f"two tensors named {name[:80]!r}")
        if sides > MOST_SIDES:
            raise corrupt(path, f"{name[:80]!r} has {sides:,} sides")
        shape = tuple(source.number("Q") for _ in range(sides))[::-1]
        infos[name] = shape, source.number("I"), source.number("Q")
    align = header.entries.get("general.alignment", 32)
    if not isinstance(align, int) or align < 8 or align & (align - 1):
        raise corrupt(path, f"numbers aligned to {align!r} bytes")
    data = math.ceil(source.position / align) * align
    for name, (shape, kind, offset) in infos.items():
        if 0 in shape or math.prod(shape) > 8 * size or offset % align or data + offset > size:
            raise corrupt(path, f"{name[:80]!r} of shape {shape} at {offset:,} is not inside it")
        header.tensors[name] = StoredTensor(shape, kind, data + offset)
    return header


def _value(source: _Bytes, kind: int) -> Value | None:
    """A text, a number or a short list of numbers; None for longer ones, which are skipped."""
    if kind == TEXT:
        return source.text()
    if kind == ARRAY:
        return _array(source, source.number("I"), source.number("Q"))
    if not SCALARS.get(kind):
        raise corrupt(source.path, f"an entry of type {kind}")
    return source.number(SCALARS[kind])


def _array(source: _Bytes, kind: int, length: int) -> Value | None:
    if kind == TEXT:
        for _ in range(length):
            source.text()
        return None
    if not SCALARS.get(kind):
        raise corrupt(source.path, f"an array of type {kind}")
    form = SCALARS[kind]
    content = source.take(length * struct.calcsize(f"<{form}"))
    return list(struct.unpack(f"<{length}{form}", content)) if length <= MAX_STORED else None
