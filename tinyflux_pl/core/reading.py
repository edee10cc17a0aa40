"""A verifier's reading of pictures as figures."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reading:
    """A verifier's reading of pictures: the share that it can read, and the mean fit in [0, 1].

    `fit` is None where a verifier fits nothing.
    """

    readable: float
    fit: float | None = None

    def values(self) -> dict[str, float]:
        """The figures that there are, by name."""
        figures = {"readable": self.readable, "fit": self.fit}
        return {name: value for name, value in figures.items() if value is not None}
