"""Files of a dataset that are not used, or possibly not as intended."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

MAX_NAMES = 5


@dataclass(frozen=True)
class Finding:
    """The kind of finding in a few words, the files concerned, and the cure."""

    kind: str
    names: tuple[str, ...]
    cure: str

    def line(self) -> str:
        """The count, the first names, and the cure."""
        more = f", and {len(self.names) - MAX_NAMES:,} more" if len(self.names) > MAX_NAMES else ""
        return f"{len(self.names):,}: {', '.join(self.names[:MAX_NAMES])}{more}; do: {self.cure}"


def findings_of(kind: str, names: Iterable[str], cure: str) -> list[Finding]:
    """A list of one finding; empty without files."""
    files = tuple(names)
    return [Finding(kind, files, cure)] if files else []
