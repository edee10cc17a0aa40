"""What of a command line decides the caches of its run: it belongs to every command that makes them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from tinyflux_pl.core.interpreter import choosing

GROUPS = ("paths", "codec", "text", "path", "teacher", "experts", "data", "model", "seed", "hardware", "experiment")
GROUPS += ("debug",)


def words(config: Mapping[str, Any]) -> list[str]:
    """Flags and overrides as they were typed, without what caches do not depend on."""
    chosen = [line for line in config.get("overrides", []) if line.lstrip("+~").startswith(GROUPS)]
    return [*config.get("flags", []), *chosen]


def named(recipe: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], Any]:
    """The recipe, within which messages name the run's own choices in the commands that they give."""

    @functools.wraps(recipe)
    def naming(config: dict[str, Any]) -> Any:
        with choosing(words(config)):
            return recipe(config)

    return naming
