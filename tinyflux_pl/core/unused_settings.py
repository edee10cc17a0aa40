"""Settings in a release's files that this project does not read: printed once."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tinyflux_pl.core.printable import printable

_NAMED: set[tuple[str, str]] = set()


def name_unread(keys: Iterable[str], file: str | Path) -> None:
    """Print the keys of a file that have no effect here, each once per process."""
    new = sorted(key for key in set(map(str, keys)) if (str(file), key) not in _NAMED)
    _NAMED.update((str(file), key) for key in new)
    if new:
        listed = ", ".join(key[:60] for key in new[:10])
        more = f" and {len(new) - 10} more" if len(new) > 10 else ""
        print(printable(f"not read, and without effect here: {listed}{more} (in {file})"))
