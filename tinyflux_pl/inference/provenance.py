"""Provenance of images: parts by name and content hash, never by path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from tinyflux_pl.weights.headers import known_sha256

LIBRARIES = ("tinyflux_pl", "torch", "diffusers", "transformers")
DIGITS = 16  # of the 64 of a SHA-256: enough to identify a file


@lru_cache(maxsize=4)
def versions(libraries: tuple[str, ...] = LIBRARIES) -> dict[str, str]:
    """Installed versions of libraries, by default of those that compute."""
    installed = {}
    for name in libraries:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # run from a checkout that was never installed
            continue
    return installed


def device_name(device: torch.device) -> str:
    """cpu, or the name of the GPU: results depend on the hardware's rounding."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def strip_paths(value: Any) -> Any:
    """Reduce each path in plain data to its last component, so that no local folder is recorded."""
    if isinstance(value, Mapping):
        return {str(key): strip_paths(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [strip_paths(part) for part in value]
    return Path(value).name if isinstance(value, str) and _is_path(value) else value


def _is_path(text: str) -> bool:
    # A repository's owner/name counts as a path only if such a file exists.
    if text.startswith(("/", "~", "./", "../")):
        return len(text) < 4096 and "\n" not in text
    try:
        return "/" in text and Path(text).exists()
    except (OSError, ValueError):
        return False


def shorten_hashes(value: Any) -> Any:
    """Cut each SHA-256 in plain data to its first DIGITS digits."""
    if isinstance(value, Mapping):
        return {key: shorten_hashes(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [shorten_hashes(part) for part in value]
    hexadecimal = isinstance(value, str) and set(value) <= set("0123456789abcdef+")
    return (
        "+".join(h[:DIGITS] for h in value.split("+"))
        if hexadecimal and len(value) >= 64
        else value
    )


def part(component: Any) -> dict[str, Any]:
    """Configuration and content hashes of a codec or a text encoder."""
    content = shorten_hashes(component.fingerprint())
    return strip_paths({"name": component.name, **component.config(), "content": content})


def contents(files: Sequence[Path]) -> dict[str, str]:
    """File name -> first digits of its SHA-256, computed once a process."""
    return {file.name: known_sha256(file)[:DIGITS] for file in files}
