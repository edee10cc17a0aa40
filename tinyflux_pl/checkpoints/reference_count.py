"""The number of reference pictures a checkpoint's network was trained with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

KEY = "references"
METADATA = "tinyflux_pl.references"  # in the header of an exported adapter
PAIRS = "pairs"  # the name of the only records with references
STARTS = ("base", "teacher", "init")  # what a network may have learned references from


def recorded(config: Mapping[str, Any]) -> int | None:
    """Number of references per training picture; 0: trained without any.

    None: the description does not say it, or the network is a release's, whose own rule says it.
    """
    if KEY in config:
        count = config[KEY]
        return count if type(count) is int and count >= 0 else None
    # an earlier version names only the records whose captions it describes
    captions = config.get("captions")
    sources = captions.get("sources") if isinstance(captions, Mapping) else None
    if not isinstance(sources, Mapping) or any(key in config for key in STARTS):
        return None
    names = {str(s.get("records")) for s in sources.values() if isinstance(s, Mapping)}
    return 0 if names and PAIRS not in names else None


def metadata_of(count: int | None) -> dict[str, str]:
    """A known count as an entry of a safetensors header; {} for an unknown one."""
    return {} if count is None else {METADATA: str(count)}


def in_metadata(metadata: Mapping[str, str]) -> int | None:
    """The count in a safetensors header; None where another program wrote the file."""
    text = metadata.get(METADATA, "")
    return int(text) if text.isascii() and text.isdigit() else None


def larger(one: int | None, other: int | None) -> int | None:
    """The count of a network trained with both; 0 only if both are known to be 0."""
    if not one and not other:
        return None if None in (one, other) else 0
    return max(one or 0, other or 0)
