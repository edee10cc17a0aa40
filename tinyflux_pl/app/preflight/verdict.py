"""The last line of preflight=only: ready, or the reason why not."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from tinyflux_pl.app.reporting import tables
from tinyflux_pl.core.errors import Interrupted, TinyFluxError

ONLY = "only"


def with_verdict(recipe: Callable[[dict[str, Any]], int]) -> Callable[[dict[str, Any]], int]:
    """Decorate a recipe to print a verdict for preflight=only; code and errors pass through."""

    @functools.wraps(recipe)
    def with_last_line(config: dict[str, Any]) -> int:
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

    return with_last_line
