"""JSON files of a store: each holds its own hash, so that a single changed bit is noticed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tinyflux_pl.cache.staleness import repair_hint
from tinyflux_pl.core import files
from tinyflux_pl.core.errors import CorruptStore

MANIFEST_FILE = "manifest.json"
GROUP_FILE = "group.json"
AUDIT_FILE = "audit.json"
KEYS = {  # of each file
    MANIFEST_FILE: {"schema", "name", "total", "shard_size", "records", "keys", "seal"},
    GROUP_FILE: {"group", "fingerprint", "seal"},
    AUDIT_FILE: {"of", "seal"},
}
SHARD_RECORD_KEYS = {"size", "sha256", "layout", "inputs", "seal"}
FOREIGN = "is another program's"
MOVE_HINT = "move that file elsewhere: it is never removed"


def is_foreign(path: Path) -> bool:
    """True if a file with the name of a store's file is intact JSON of another program.

    An empty file belongs to nobody. A damaged file of a store still has most of its keys.
    """
    try:
        content = files.read_json(path)
    except (OSError, ValueError):
        return False
    if not isinstance(content, dict | list) or not content:
        return False
    expected = KEYS.get(path.name, SHARD_RECORD_KEYS)
    shared = expected & content.keys() if isinstance(content, dict) else set()
    return 2 * len(shared) < len(expected)


def read_sealed(
    path: Path, root: Path, fields: Mapping[str, type] = MappingProxyType({})
) -> dict[str, Any]:
    """Read sealed JSON of the store at `root`.

    Raises CorruptStore if a single bit changed, if a field is missing or of another type, or if the
    file is another program's.
    """
    try:
        content = files.read_sealed(path)
    except (OSError, ValueError) as error:
        if is_foreign(path):
            what = f"{path.name} {FOREIGN}"
            cure = f"{MOVE_HINT}; then run this again"
            raise CorruptStore(what, where=str(path), cure=cure) from error
        what = f"{path.name} changed after it was written"
        raise CorruptStore(what, where=str(path), cure=repair_hint(root)) from error
    require_fields(content, fields, path, root)
    return content


def require_fields(
    content: Mapping[str, Any], fields: Mapping[str, type], path: Path, root: Path
) -> None:
    """Raise CorruptStore for a field of the file `path` that is missing or of another type."""
    missing = [key for key, kind in fields.items() if type(content.get(key)) is not kind]
    if missing:
        what = f"{path.name} holds no {' and no '.join(missing)}"
        raise CorruptStore(what, where=str(path), cure=repair_hint(root))
