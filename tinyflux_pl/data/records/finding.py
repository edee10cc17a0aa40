"""Files of a dataset that are not used, or not as may be meant."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

NAMED = 5


@dataclass(frozen=True)
class Finding:
    """What was found, in a few words, the files concerned, and what to do."""

    kind: str
    names: tuple[str, ...]
    cure: str

    def line(self) -> str:
        """The count, the first names, and the cure."""
        more = f", and {len(self.names) - NAMED:,} more" if len(self.names) > NAMED else ""
        return f"{len(self.names):,}: {', '.join(self.names[:NAMED])}{more}; do: {self.cure}"


def found(kind: str, names: Iterable[str], cure: str) -> list[Finding]:
    """A finding, where there is any file of that kind."""
    known = tuple(names)
    return [Finding(kind, known, cure)] if known else []
