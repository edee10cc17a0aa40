"""Long runs of zero bytes in a weight file: a download that stopped, or tensors of zeros.

Both leave such runs, at the end of a file or inside it. Tensors that are honestly zero (the zero
convolutions of an untrained control branch, unused rows of a vocabulary) end at the borders of
tensors or of their rows; what a download left out ends where its blocks do, inside rows.
"""

from __future__ import annotations

import bisect
import json
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from tinyflux_pl.core.errors import CorruptCheckpoint
from tinyflux_pl.core.files import require_tensor_file
from tinyflux_pl.weights import gguf_header

SHORTEST = 2**20  # bytes of a run that is judged
PROBE = 64  # bytes that are read at each multiple of SHORTEST
PARTIAL = 256  # bytes of zeros in a row that are no accident
BLOCK = 2**18
CURE = "fetch it again: a download that stopped leaves zeros"
# queries, keys and values are zeros in no network: attention would read nothing
NEVER_ZERO = re.compile(r"(?:^|[._])(?:q|k|v|qkv|kv|query|key|value)(?:_proj|_lin)?\.weight$")


@dataclass(frozen=True)
class Span:
    """The bytes of a tensor, and of one of its rows; 0: a vector, which has none."""

    name: str
    start: int
    end: int
    row: int


def require_no_gap(path: str | Path) -> None:
    """Raise CorruptCheckpoint for a run of SHORTEST zero bytes or more that no tensor explains.

    A few bytes are read of each SHORTEST bytes of the file, and once a process. Raises for the
    header as core.files.require_tensor_file and weights.gguf_header do.
    """
    status = os.stat(path)
    _judge(str(path), status.st_ino, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=256)
def _judge(path: str, _: int, size: int, __: int) -> None:
    if size < 2 * SHORTEST:
        return
    spans = _spans(path, size)
    with open(path, "rb", buffering=0) as handle:
        for start, end in runs(handle, size):
            if (why := _defect(spans, start, end)) is not None:
                what = f"{end - start:,} bytes of zeros from byte {start:,} on, {why}"
                raise CorruptCheckpoint(what, where=path, cure=CURE)


def runs(handle: BinaryIO, size: int) -> Iterator[tuple[int, int]]:
    """Start and end of each run of zero bytes of SHORTEST or more, found by its probes."""
    reached = 0
    for probe in (*range(0, size - PROBE, SHORTEST), size - PROBE):
        if probe < reached or any(_read(handle, probe, probe + PROBE)):
            continue
        start, end = _first_zero(handle, probe), _first_other(handle, probe, size)
        reached = end
        if end - start >= SHORTEST:
            yield start, end


def _read(handle: BinaryIO, start: int, end: int) -> bytes:
    return os.pread(handle.fileno(), end - start, start)


def _first_zero(handle: BinaryIO, inside: int) -> int:
    """Where the run around a byte begins."""
    while inside > 0:
        start = max(0, inside - BLOCK)
        kept = _read(handle, start, inside).rstrip(b"\0")
        if kept:
            return start + len(kept)
        inside = start
    return 0


def _first_other(handle: BinaryIO, inside: int, size: int) -> int:
    """Where the run around a byte ends."""
    while inside < size:
        block = _read(handle, inside, min(size, inside + BLOCK))
        kept = block.lstrip(b"\0")
        if kept or not block:
            return inside + len(block) - len(kept)
        inside += len(block)
    return size


def _defect(spans: list[Span], start: int, end: int) -> str | None:
    """The reason why no tensor explains a run; None where its ends are those of tensors or rows."""
    starts = [span.start for span in spans]
    inside = spans[max(0, bisect.bisect_right(starts, start) - 1) : bisect.bisect_left(starts, end)]
    if not inside:
        return None
    first, last = inside[0], inside[-1]
    offset = (start - first.start) % first.row if first.row else 0
    if offset and min(first.row - offset, end - start) >= PARTIAL:
        return f"beginning inside a row of {first.name[:200]}"
    if last.row and (end - last.start) % last.row >= PARTIAL:
        return f"ending inside a row of {last.name[:200]}"
    for span in inside:
        if start <= span.start and span.end <= end and NEVER_ZERO.search(span.name):
            return f"which are all of {span.name[:200]}"
    return None


def _spans(path: str, size: int) -> list[Span]:
    """The tensors of a file in the order of their bytes."""
    with open(path, "rb") as handle:
        is_gguf = handle.read(4) == gguf_header.MAGIC
    return _gguf_spans(path, size) if is_gguf else _safetensors_spans(path)


def _safetensors_spans(path: str) -> list[Span]:
    require_tensor_file(path)
    with open(path, "rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        header = json.loads(handle.read(length))
    spans = []
    for name, entry in header.items():
        if name != "__metadata__":
            start, end = (8 + length + offset for offset in entry["data_offsets"])
            spans.append(Span(name, start, end, _row(entry["shape"], end - start)))
    return sorted(spans, key=lambda span: span.start)


def _gguf_spans(path: str, size: int) -> list[Span]:
    stored = sorted(gguf_header.read(path).tensors.items(), key=lambda item: item[1].start)
    ends = [tensor.start for _, tensor in stored[1:]] + [size]
    return [
        Span(name, tensor.start, end, _row(tensor.shape, end - tensor.start))
        for (name, tensor), end in zip(stored, ends, strict=True)
    ]


def _row(shape: tuple[int, ...] | list[int], num_bytes: int) -> int:
    return num_bytes // shape[0] if len(shape) > 1 and math.prod(shape) else 0
