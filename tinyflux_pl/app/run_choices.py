"""The words of a command line that determine a run's caches, repeated in suggested commands."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from tinyflux_pl.config.methods_with_data import chooses_data
from tinyflux_pl.core.interpreter import repeating_choices

GROUPS = ("paths", "codec", "text", "path", "teacher", "experts", "data", "model", "seed")
GROUPS += ("pathway", "hardware", "release", "experiment", "debug", "hydra.searchpath")


def choice_words(flags: Sequence[str], overrides: Sequence[str]) -> list[str]:
    """Flags and overrides as they were typed, without those that do not affect caches."""
    chosen = [
        line for line in overrides if line.lstrip("+~").startswith(GROUPS) or chooses_data(line)
    ]
    return [*flags, *chosen]


def with_run_choices(recipe: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], Any]:
    """Decorate a recipe so that commands in its messages repeat the run's own choices."""

    @functools.wraps(recipe)
    def with_choices(config: dict[str, Any]) -> Any:
        with repeating_choices(choice_words(config.get("flags", []), config.get("overrides", []))):
            return recipe(config)

    return with_choices
