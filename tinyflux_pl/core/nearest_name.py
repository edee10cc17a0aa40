"""The nearest valid name, for errors about unknown ones."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, names: Iterable[str], otherwise: str) -> str:
    """A cure for an unknown name: the nearest of `names`, or `otherwise` where none is near."""
    near = difflib.get_close_matches(name, list(names), n=1)
    return f"did you mean {near[0]!r}?" if near else otherwise
