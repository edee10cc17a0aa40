"""The number of references that weights were trained with, checked before they are read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tinyflux_pl.checkpoints import reference_count
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.inference.open_checkpoint import is_checkpoint, newest
from tinyflux_pl.methods.adapter_file import file_in
from tinyflux_pl.weights.headers import metadata_of


def with_adapters(base: int | None, chosen: Sequence[tuple[Path, float]]) -> int | None:
    """The count of a base with the adapters at their scales; a scale of 0 adds none.

    CheckpointMismatch for a place without an adapter.
    """
    for path, scale in chosen:
        if scale != 0:
            base = reference_count.larger(base, of_adapter(path.expanduser()))
    return base


def of_adapter(path: Path) -> int | None:
    """The count of a run, or of a file's header; None in files from elsewhere."""
    if is_checkpoint(path):
        return reference_count.recorded(newest(path)[0].config)
    return reference_count.in_metadata(metadata_of(file_in(path)))


def require_some(count: int | None) -> None:
    """Raise ConfigError for weights known to have been trained without references."""
    if count == 0:
        what = "this network was trained without reference pictures"
        cure = "train it with them (data=pairs data.root=FOLDER), or leave reference= out"
        raise ConfigError(what, where="reference", cure=cure)


def excess(number: int, count: int | None) -> str | None:
    """A warning of more references than the weights were trained with; None if there are not."""
    if not count or number <= count:
        return None
    return (
        f"reference= names {number} pictures; these weights were trained with {count} beside each "
        "picture, and have not learnt to use more"
    )
