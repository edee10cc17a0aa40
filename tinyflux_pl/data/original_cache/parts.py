"""The three parts of a cache of the original trainer: their keys and files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyflux_pl.core.errors import DataError
from tinyflux_pl.core.files import read_json

MAKE_AGAIN = "copy the cache again, or make it again with the original's trainer"
META_FILE = "meta.pt"
STATE_FILE = "state.json"
SHARD_NAME = re.compile(r"shard_(\d{4,})\.pt")
MAX_SHARDS = 10**5


@dataclass(frozen=True)
class Part:
    """One kind of file: `columns` maps a key of it to a column of a store, `axes` to its rank.

    `has_times`: it holds the buckets' times, and no prompts.
    """

    name: str
    columns: Mapping[str, str]
    axes: Mapping[str, int]
    has_times: bool = True


ENCODINGS = Part(
    "encodings",
    {"latents": "latents", "t5_embeds": "text.tokens", "clip_pooled": "text.pooled"},
    {"latents": 4, "t5_embeds": 3, "clip_pooled": 2},
    has_times=False,
)
LUNE = Part("lune", {"features": "lune.features"}, {"features": 3})
SOL = Part("sol", {"stats": "sol.stats", "spatial": "sol.spatial"}, {"stats": 3, "spatial": 4})
PARTS = {part.name: part for part in (ENCODINGS, LUNE, SOL)}


def files_of(root: Path) -> dict[str, list[Path]]:
    """Part -> its file, or its shards in order, for the parts in a folder.

    DataError for a folder without encodings, for two caches in one folder, and for shards that
    were not finished.
    """
    if not root.is_dir():
        cure = "name the folder of a cache: data.root=FOLDER"
        raise DataError("no such folder", where=str(root), cure=cure)
    single = {name: [root / f"{name}.pt"] for name in PARTS if (root / f"{name}.pt").is_file()}
    shards = {name: paths for name in PARTS if (paths := _shards(root / name))}
    if single and shards:
        cure = "move one of the two to a folder of its own"
        raise DataError(
            f"both {', '.join(f'{name}.pt' for name in single)} and shards",
            where=str(root),
            cure=cure,
        )
    files = single or shards
    if ENCODINGS.name not in files:
        cure = "name the folder that DatasetCache.save or build_incremental wrote: data.root=FOLDER"
        raise DataError(
            "no encodings.pt and no encodings/shard_0000.pt", where=str(root), cure=cure
        )
    if shards:
        _require_finished(root, shards)
    return files


def unused_files(root: Path, files: Mapping[str, list[Path]]) -> list[str]:
    """Files of the folder and of its parts that belong to no cache."""
    used = {path for paths in files.values() for path in paths}
    used |= {root / META_FILE, root / STATE_FILE}
    folders = [root, *(root / name for name in PARTS if (root / name).is_dir())]
    there = [path for folder in folders for path in sorted(folder.iterdir()) if path.is_file()]
    return [path.relative_to(root).as_posix() for path in there if path not in used]


def _shards(folder: Path) -> list[Path]:
    """The shards in a folder by their number."""
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    numbered = [(int(match[1]), match[0]) for match in map(SHARD_NAME.fullmatch, names) if match]
    return [folder / name for _, name in sorted(numbered)]


def _require_finished(root: Path, shards: Mapping[str, list[Path]]) -> None:
    """Require shards 0 .. n - 1 of every part, all recorded as complete by the build."""
    state = _state(root / STATE_FILE)
    total, size = state["n_samples"], state["shard_size"]
    expected = -(-total // size)
    cure = "finish the build with the original's trainer: it goes on where it stopped"
    if expected > MAX_SHARDS or {*state["completed_shards"]} != {*range(expected)}:
        done = len({*state["completed_shards"]})
        raise DataError(
            f"the build has completed {done:,} of {expected:,} shards", where=str(root), cure=cure
        )
    for name, paths in shards.items():
        numbers = [int(path.stem.removeprefix("shard_")) for path in paths]
        if numbers != [*range(expected)]:
            missing = sorted({*range(expected)} - {*numbers})
            what = f"{len(numbers):,} shards of {name}, and {expected:,} were completed"
            if missing:
                what = f"{what}; the first missing one is {missing[0]}"
            raise DataError(what, where=str(root / name), cure=MAKE_AGAIN)


def _state(path: Path) -> dict[str, Any]:
    """The progress that the original's build has recorded; DataError where it is none."""
    try:
        state = read_json(path)
    except (OSError, ValueError) as error:
        what = f"{path.name} cannot be read ({error}): it says which shards are complete"
        raise DataError(what, where=str(path), cure=MAKE_AGAIN) from error
    counts = ("n_samples", "shard_size")
    shards = state.get("completed_shards") if isinstance(state, dict) else None
    is_valid = isinstance(shards, list) and all(type(k) is int for k in shards)
    if not is_valid or any(type(state.get(key)) is not int or state[key] < 1 for key in counts):
        what = f"{path.name} holds no completed_shards, n_samples and shard_size"
        raise DataError(what, where=str(path), cure=MAKE_AGAIN)
    return state
