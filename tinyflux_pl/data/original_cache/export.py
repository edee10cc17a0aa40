"""A store written as the files of the original trainer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from tinyflux_pl.cache.cached_text import FIRST
from tinyflux_pl.cache.store import CacheStore
from tinyflux_pl.core import folders
from tinyflux_pl.core.errors import DataError
from tinyflux_pl.core.progress import track
from tinyflux_pl.core.size_conditioning import SIZE_IDS
from tinyflux_pl.data.original_cache.meta_file import write_meta
from tinyflux_pl.data.original_cache.part_file import DTYPES
from tinyflux_pl.data.original_cache.parts import ENCODINGS, PARTS, SOL, Part

BLOCK = 256  # rows that are read at once
STATISTICS = 3  # of Sol, that the original's network reads
# identities of rows, padding of the text, original sizes: the original's files hold none of them
UNSTORED = ("sample_ids", f"{FIRST}.mask", SIZE_IDS)


def write_cache(store: CacheStore, folder: Path) -> None:
    """Write the store atomically as encodings.pt, lune.pt, sol.pt (if it has them) and meta.pt.

    Tensors are the store's to the bit. `folder` must not exist. DataError for a store that the
    layout cannot express (`require_expressible`).
    """
    parts = require_expressible(store)
    if folder.exists():
        cure = "name a folder that does not exist yet"
        raise DataError("the path exists already", where=str(folder), cure=cure)
    rows = {name: _row_bytes(store, part) for name, part in parts.items()}
    with folders.staged(folder, len(store) * sum(rows.values())) as staging:
        for name, part in parts.items():
            buffers = staging / f"{name}.rows"
            buffers.mkdir()
            content = _content(store, part, buffers)
            torch.save(content, staging / f"{name}.pt")
            del content  # which maps the files that are removed here
            for file in buffers.iterdir():
                file.unlink()
            buffers.rmdir()
        groups = store.groups()
        clocks = {name: str(groups[name]["clock"]) for name in parts if PARTS[name].has_times}
        write_meta(staging, store.name, clocks)


def require_expressible(store: CacheStore) -> dict[str, Part]:
    """The parts of the store; DataError for content that the original's files cannot hold."""
    groups = store.groups()
    parts = {name: part for name, part in PARTS.items() if name in groups}
    for name in parts:
        if not store.complete(name):
            cure = "finish it first: run its extraction again"
            raise _fault(store, f"{name} lacks {len(store.pending(name)):,} shards", cure)
    if ENCODINGS.name not in parts:
        raise _fault(store, "it has no encodings", "extract them first")
    if len(store.segment_layouts(ENCODINGS.name)) > 1:
        raise _fault(
            store, "pictures of several shapes", "extract them in one: data.buckets.enabled=false"
        )
    for name, part in parts.items():
        layout = store.layout(name)
        if extra := sorted({*layout} - {*part.columns.values(), *(UNSTORED * (part is ENCODINGS))}):
            cure = "extract the pictures and one caption each alone, into a cache of its own"
            raise _fault(
                store, f"{name} has {', '.join(extra)}, and the original has no such column", cure
            )
        for key, column in part.columns.items():
            dtype, shape = layout.get(column, (None, ()))
            if dtype not in DTYPES or len(shape) + 1 != part.axes[key]:
                what = f"{column} is {dtype} of shape {shape}".replace("torch.", "")
                raise _fault(store, f"{what}, which is no {key}", "export a cache of pictures")
    if SOL.name in parts and store.layout(SOL.name)["sol.stats"][1][-1] != STATISTICS:
        cure = "extract it with experts.sol.stats=3"
        raise _fault(store, f"Sol has four statistics, the original {STATISTICS}", cure)
    return parts


def left_out(store: CacheStore) -> list[str]:
    """The groups and columns that the original's files cannot hold."""
    columns = [name for name in UNSTORED if name in store.layout(ENCODINGS.name)]
    return [*(name for name in store.groups() if name not in PARTS), *columns]


def _row_bytes(store: CacheStore, part: Part) -> int:
    layout = store.layout(part.name)
    sizes = (layout[column] for column in part.columns.values())
    return sum(math.prod(shape) * dtype.itemsize for dtype, shape in sizes)


def _content(store: CacheStore, part: Part, buffers: Path) -> dict[str, object]:
    """The content of a file; its tensors lie in files: memory does not grow with the rows."""
    tensors = {key: _column(store, column, buffers / key) for key, column in part.columns.items()}
    content: dict[str, object] = {**tensors, "dtype": next(iter(tensors.values())).dtype}
    if part.has_times:
        return {**content, "t_buckets": torch.tensor(_group(store, part)["t_buckets"])}
    prompts = store.captions(range(len(store)))
    return {**content, "prompts": prompts if any(prompts) else None}


def _group(store: CacheStore, part: Part) -> Mapping[str, list[float]]:
    return store.groups()[part.name]


def _column(store: CacheStore, column: str, file: Path) -> Tensor:
    dtype, shape = store.gather(column, [0]).dtype, store.gather(column, [0]).shape[1:]
    size = len(store) * math.prod(shape)
    result = torch.from_file(str(file), shared=True, size=size, dtype=dtype)
    result = result.view(len(store), *shape)
    starts = range(0, len(store), BLOCK)
    for start in track(starts, f"export {column}", len(store), "row", BLOCK):
        rows = range(start, min(start + BLOCK, len(store)))
        result[rows.start : rows.stop] = store.gather(column, rows)
    return result


def _fault(store: CacheStore, what: str, cure: str) -> DataError:
    return DataError(what, where=str(store.root), cure=cure)
