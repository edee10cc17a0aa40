"""The files of a store by name, and the leftovers of killed writers."""

from __future__ import annotations

import re
from pathlib import Path

from tinyflux_pl.cache import sample_keys
from tinyflux_pl.cache.manifest import Manifest
from tinyflux_pl.cache.sealed_json import AUDIT_FILE, GROUP_FILE, MANIFEST_FILE, is_foreign
from tinyflux_pl.cache.shard_locks import FILE as SHARD_LOCKS
from tinyflux_pl.cache.shard_rows import ShardRows
from tinyflux_pl.cache.shards import shard_files
from tinyflux_pl.cache.verify import is_group
from tinyflux_pl.core.errors import CorruptStore, DataError

ROOT_FILES = (MANIFEST_FILE, AUDIT_FILE, sample_keys.FILE)
LOCK = ".lock"
_NAMES = r"manifest\.json|audit\.json|keys\.bin|group\.json|shard_\d{5,}\.(?:safetensors|json)"
_PART = re.compile(rf"\.(?:{_NAMES})\.[0-9a-f]{{8}}\.part")


def files_of(root: Path) -> list[Path]:
    """Every file of a store, locks and leftovers included; no other program's."""
    names = [root / name for name in (*ROOT_FILES, LOCK)]
    for group in _groups(root):
        names += [group / GROUP_FILE, group / SHARD_LOCKS, *shard_files(group)]
    return sorted([*filter(_belongs, names), *partial_files(root)])


def partial_files(root: Path) -> list[Path]:
    """Partially written files, also those of living processes."""
    folders = (root, *_groups(root))
    return [p for folder in folders for p in sorted(folder.glob(".*.part")) if _is_partial(p)]


def excess_shards(root: Path) -> list[Path]:
    """Shards and records beyond the manifest's number, left by a longer store."""
    try:
        manifest = Manifest.read(root)
    except (CorruptStore, DataError):  # damaged, or without a manifest: the number is unknown
        return []
    count = len(ShardRows(manifest.total, manifest.shard_size, manifest.segments))
    return [
        path
        for group in _groups(root)
        for path, k in shard_files(group).items()
        if k >= count and _belongs(path)
    ]


def _groups(root: Path) -> list[Path]:
    """Folders that contain a file with the seal of a group."""
    return [path for path in sorted(root.iterdir()) if path.is_dir() and is_group(path)]


def _belongs(path: Path) -> bool:
    """True for a file of the store; a shard is recognised by its record, if it has one."""
    if not path.is_file():
        return False
    record = path.with_suffix(".json") if path.suffix in (".json", ".safetensors") else None
    return record is None or not record.exists() or not is_foreign(record)


def _is_partial(path: Path) -> bool:
    return path.is_file() and _PART.fullmatch(path.name) is not None
