"""Whether a store on disk is whole, part by part, and its repair: damaged parts are taken out, the rest stays."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from types import MappingProxyType

from tinyflux_pl.cache import sample_keys
from tinyflux_pl.cache.sealed_json import is_foreign, read_sealed
from tinyflux_pl.cache.shards import GROUP_FIELDS, CacheGroup, shard_files
from tinyflux_pl.cache.store import CacheStore
from tinyflux_pl.core.errors import CorruptStore
from tinyflux_pl.core.file_lock import locked

MANIFEST, GROUP, NOT_MADE = "manifest.json", "group.json", "not made yet"
NOTES = ("audit.json",)  # what a run has found out about the data
_SEAL = re.compile(rb'"seal": "[0-9a-f]{64}"')
LONGEST = 2**24  # bytes of a description
MOST = 64  # records of a folder that are looked at


def is_store(folder: Path) -> bool:
    """Whether a folder is, or before it was damaged was, a store: a part of it bears a seal. Others' files do not."""
    if _bears_seal(folder / MANIFEST, b'"shard_size"'):
        return True
    return any(is_group(path.parent) for name in (GROUP, "shard_*.json") for path in folder.glob(f"*/{name}"))


def is_group(folder: Path) -> bool:
    """Whether a folder is, or was, a group of a store: its description or the record of a shard bears a seal."""
    if _bears_seal(folder / GROUP, b'"fingerprint"'):
        return True
    records = (path for path in shard_files(folder) if path.suffix == ".json")
    return any(_bears_seal(path, b'"sha256"') for path in islice(records, MOST))


def _bears_seal(path: Path, word: bytes) -> bool:
    """Whether a file holds a seal, of whatever content, beside a word that is in every file of its kind."""
    try:
        with open(path, "rb") as handle:
            content = handle.read(LONGEST)
    except OSError:
        return False
    return word in content and _SEAL.search(content) is not None


def examine(root: Path) -> Iterator[tuple[Path, str]]:
    """(file, what is wrong with it) for every part, hashed anew; "" if nothing, NOT_MADE if it was never written."""
    store, fault = _opened(root)
    yield root / MANIFEST, fault
    keyed = ""
    if store is not None:
        keyed = _fault_of_keys(store)
        yield store.keys.file, keyed
    for noted in (root / name for name in NOTES if (root / name).exists()):
        yield noted, _fault_of(noted, root)
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        if not is_group(folder):
            continue
        fault = _fault_of(folder / GROUP, root, GROUP_FIELDS)
        yield folder / GROUP, fault
        group = CacheGroup(folder, store.keys if store else None)
        judged = not fault and store is not None and not keyed
        # without a manifest, and keys to match, nobody can say how many there should be
        for k in range(store.shards) if store and not keyed else sorted(set(shard_files(folder).values())):
            shard = group.shard_path(k)
            missing = not shard.with_suffix(".json").exists()
            fault = NOT_MADE if missing else group.fault(k, check_inputs=judged)
            yield shard, fault.removeprefix(f"{shard.name}: ")


def foreign(root: Path) -> list[Path]:
    """Files of other programs under the names of a store's own: they stay, and the store waits for their place."""
    groups = (path for path in root.glob(f"*/{GROUP}") if is_group(path.parent))
    named = (root / MANIFEST, *(root / name for name in NOTES), *groups)
    return sorted(path for path in named if is_foreign(path))


def repair(root: Path) -> list[tuple[Path, str]]:
    """Take out what `examine` finds damaged, so that the next extraction writes just that; returns it.

    A shard says itself what it was made from, so shards outlive the manifest and their group's description.
    """
    with locked(root.parent), locked(root):  # the first is what an extraction holds
        found = [(path, fault) for path, fault in examine(root) if fault and fault != NOT_MADE]
        for path, _ in found:
            if path.name in (MANIFEST, sample_keys.FILE):  # they belong together
                _take_out(root / MANIFEST)
                (root / sample_keys.FILE).unlink(missing_ok=True)
            else:
                _take_out(path.with_suffix(".json"))
    return found


def _take_out(file: Path) -> None:
    """Remove a description or a record, unless it is another program's."""
    if not is_foreign(file):
        file.unlink(missing_ok=True)


def _opened(root: Path) -> tuple[CacheStore | None, str]:
    if not (root / MANIFEST).exists():
        return None, "it is missing"
    try:
        return CacheStore.open(root), ""
    except CorruptStore as error:
        return None, error.what


def _fault_of(path: Path, root: Path, holds: Mapping[str, type] = MappingProxyType({})) -> str:
    if not path.exists():
        return "it is missing"
    try:
        read_sealed(path, root, holds)
    except CorruptStore as error:
        return error.what
    return ""


def _fault_of_keys(store: CacheStore) -> str:
    try:
        store.keys.table()
    except CorruptStore as error:
        return error.what
    return ""
