"""SHA-256 of downloaded files, recorded at the first load and compared at every later one."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Sequence
from pathlib import Path

from tinyflux_pl.core import files
from tinyflux_pl.core.errors import HubError
from tinyflux_pl.weights.headers import known_sha256

_SHA256 = re.compile(r"[0-9a-f]{64}")


def check(folder: Path, names: Sequence[str], what: str) -> None:
    """Raise HubError if a file of the hub snapshot `folder` is not what was fetched.

    A file is held to the record of earlier loads, which lies two folders up, and on the first load
    to the hash under which the hub's client keeps large files (it compares their sizes alone).
    `what` names the repository and revision. Reading costs about a second per gigabyte, once a
    process.
    """
    path = folder.parent.parent / f".tinyflux_sha256_{folder.name}.json"
    record = _read(path)
    updated = dict(record)
    for name in names:
        digest = known_sha256(folder / name)
        stored_name = (folder / name).resolve().name
        expected = record.get(name) or (stored_name if _SHA256.fullmatch(stored_name) else digest)
        if digest != expected:
            raise HubError(
                f"{name} of {what} is not the file that was fetched: sha256 {digest[:16]}, "
                f"recorded {expected[:16]}",
                where=str(folder),
                cure=f"if this change was not intended, remove {folder.parent.parent} and fetch it "
                "again",
            )
        updated[name] = digest
    if updated != record:
        try:
            files.write_json(path, updated)
        except OSError as error:  # a cache that is shared and read-only
            warnings.warn(f"the hashes of {what} cannot be recorded: {error}", stacklevel=2)


def _read(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise HubError(
            "the record of hashes is not JSON", where=str(path), cure="remove it"
        ) from error
    if not isinstance(record, dict) or not all(
        isinstance(v, str) and _SHA256.fullmatch(v) for v in record.values()
    ):
        raise HubError(
            "not a record of hashes",
            where=str(path),
            cure="remove it, or fetch the repository again",
        )
    return record
