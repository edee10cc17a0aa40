"""What a picture depends on, as its file says it: parts by name and content, never by where they lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from tinyflux_pl.weights.headers import known_sha256

LIBRARIES = ("tinyflux_pl", "torch", "diffusers", "transformers")
DIGITS = 16  # of a sha256 of 64: enough to tell files apart


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """Of the libraries that compute."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # run from a checkout that was never installed
            continue
    return found


def device_name(device: torch.device) -> str:
    """cpu, or the name of a GPU: other hardware rounds otherwise."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def without_places(value: Any) -> Any:
    """The same plain data; of each path its last name alone, since a path tells of a person and not of a picture."""
    if isinstance(value, Mapping):
        return {str(key): without_places(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [without_places(part) for part in value]
    return Path(value).name if isinstance(value, str) and _is_place(value) else value


def _is_place(text: str) -> bool:
    # a repository's owner/name is no place of this machine, unless there is one
    if text.startswith(("/", "~", "./", "../")):
        return len(text) < 4096 and "\n" not in text
    try:
        return "/" in text and Path(text).exists()
    except (OSError, ValueError):
        return False


def shortened(value: Any) -> Any:
    """The same plain data with each sha256 cut to its first digits."""
    if isinstance(value, Mapping):
        return {key: shortened(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [shortened(part) for part in value]
    hexadecimal = isinstance(value, str) and set(value) <= set("0123456789abcdef+")
    return "+".join(h[:DIGITS] for h in value.split("+")) if hexadecimal and len(value) >= 64 else value


def part(thing: Any) -> dict[str, Any]:
    """A codec or a text encoder: its configuration, and by hashes what its files hold."""
    return without_places({"name": thing.name, **thing.config(), "content": shortened(thing.fingerprint())})


def contents(files: Sequence[Path]) -> dict[str, str]:
    """Name -> sha256 of each file; a second or so a gigabyte, once a process."""
    return {file.name: known_sha256(file)[:DIGITS] for file in files}
