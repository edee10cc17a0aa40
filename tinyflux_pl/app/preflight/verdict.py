"""The last line of preflight=only: whether the run can start, and if not, why."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from tinyflux_pl.app import tables
from tinyflux_pl.core.errors import Interrupted, TinyFluxError

ONLY = "only"


def with_verdict(recipe: Callable[[dict[str, Any]], int]) -> Callable[[dict[str, Any]], int]:
    """The recipe, which on preflight=only ends with a verdict; its exit code or its error stay what they are."""

    @functools.wraps(recipe)
    def judged(config: dict[str, Any]) -> int:
        if config.get("preflight") != ONLY:
            return recipe(config)
        try:
            code = recipe(config)
        except Interrupted:
            raise
        except TinyFluxError as error:
            tables.line(f"preflight: NOT ready: {error.what}")
            raise
        tables.line("preflight: ready; the same command without preflight=only starts the run")
        return code

    return judged
