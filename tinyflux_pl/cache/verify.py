"""Verify a store on disk part by part, and repair it by removing damaged parts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from types import MappingProxyType

from tinyflux_pl.cache import sample_keys
from tinyflux_pl.cache.sealed_json import (
    AUDIT_FILE,
    GROUP_FILE,
    MANIFEST_FILE,
    is_foreign,
    read_sealed,
)
from tinyflux_pl.cache.shards import GROUP_FIELDS, CacheGroup, shard_files
from tinyflux_pl.cache.store import CacheStore
from tinyflux_pl.core.errors import CorruptStore
from tinyflux_pl.core.file_lock import FILLING, locked

NOT_WRITTEN = "not made yet"
MISSING = "it is missing"
MAX_JSON_BYTES = 2**24
MAX_RECORDS = 64  # of a folder that are searched for a seal
_SEAL = re.compile(rb'"seal": "[0-9a-f]{64}"')


def is_store(folder: Path) -> bool:
    """True if the folder is, or before it was damaged was, a store.

    Unrelated folders are left alone.
    """
    if _has_seal(folder / MANIFEST_FILE, b'"shard_size"'):
        return True
    parts = [path for name in (GROUP_FILE, "shard_*.json") for path in folder.glob(f"*/{name}")]
    return any(is_group(path.parent) for path in parts)


def is_group(folder: Path) -> bool:
    """True if the folder is or was a group: one of its files has a seal."""
    if _has_seal(folder / GROUP_FILE, b'"fingerprint"'):
        return True
    records = (path for path in shard_files(folder) if path.suffix == ".json")
    return any(_has_seal(path, b'"sha256"') for path in islice(records, MAX_RECORDS))


def examine(root: Path) -> Iterator[tuple[Path, str]]:
    """Hash every part again: (file, fault), "" if intact, NOT_WRITTEN for a pending shard."""
    store, fault = _open(root)
    yield root / MANIFEST_FILE, fault
    keys_fault = ""
    if store is not None:
        keys_fault = _keys_fault(store)
        yield store.keys.file, keys_fault
    if (root / AUDIT_FILE).exists():
        yield root / AUDIT_FILE, _json_fault(root / AUDIT_FILE, root)
    has_keys = store is not None and not keys_fault
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        if not is_group(folder):
            continue
        fault = _json_fault(folder / GROUP_FILE, root, GROUP_FIELDS)
        yield folder / GROUP_FILE, fault
        group = CacheGroup(folder, None if store is None else store.keys)
        # without a manifest and its keys, the number of shards is unknown
        numbers = (
            range(store.shards)
            if store is not None and has_keys
            else sorted(set(shard_files(folder).values()))
        )
        for k in numbers:
            yield _examine_shard(group, k, check_inputs=not fault and has_keys)


def foreign_files(root: Path) -> list[Path]:
    """Files of other programs that have names of store files.

    They are kept, and the store cannot be used until they are moved.
    """
    groups = [folder for folder in root.iterdir() if folder.is_dir() and is_group(folder)]
    files = [root / MANIFEST_FILE, root / AUDIT_FILE]
    for folder in groups:
        records = (path for path in shard_files(folder) if path.suffix == ".json")
        files += [folder / GROUP_FILE, *records]
    return sorted(path for path in files if is_foreign(path))


def repair(root: Path) -> list[tuple[Path, str]]:
    """Remove the damaged parts, so that the next extraction writes just those; returns them.

    A shard records its own inputs, so shards outlive the manifest and their group's description.
    """
    folder = root.parent  # an extraction holds one of its two locks, or both
    with locked(folder), locked(folder, FILLING), locked(root):
        damaged = [(path, fault) for path, fault in examine(root) if fault and fault != NOT_WRITTEN]
        for path, _ in damaged:
            if path.name in (MANIFEST_FILE, sample_keys.FILE):  # they belong together
                _remove(root / MANIFEST_FILE)
                (root / sample_keys.FILE).unlink(missing_ok=True)
            else:
                _remove(path.with_suffix(".json"))
    return damaged


def _remove(file: Path) -> None:
    """Remove a description or a record, unless it is another program's."""
    if not is_foreign(file):
        file.unlink(missing_ok=True)


def _has_seal(path: Path, key: bytes) -> bool:
    """True if a file has a seal, valid or not, and a key common to all files of its kind."""
    try:
        with open(path, "rb") as handle:
            content = handle.read(MAX_JSON_BYTES)
    except OSError:
        return False
    return key in content and _SEAL.search(content) is not None


def _examine_shard(group: CacheGroup, k: int, check_inputs: bool) -> tuple[Path, str]:
    shard = group.shard_path(k)
    if not shard.with_suffix(".json").exists():
        return shard, NOT_WRITTEN
    return shard, group.fault(k, check_inputs=check_inputs).removeprefix(f"{shard.name}: ")


def _open(root: Path) -> tuple[CacheStore | None, str]:
    if not (root / MANIFEST_FILE).exists():
        return None, MISSING
    try:
        return CacheStore.open(root), ""
    except CorruptStore as error:
        return None, error.what


def _json_fault(path: Path, root: Path, fields: Mapping[str, type] = MappingProxyType({})) -> str:
    if not path.exists():
        return MISSING
    try:
        read_sealed(path, root, fields)
    except CorruptStore as error:
        return error.what
    return ""


def _keys_fault(store: CacheStore) -> str:
    try:
        store.keys.table()
    except CorruptStore as error:
        return error.what
    return ""
