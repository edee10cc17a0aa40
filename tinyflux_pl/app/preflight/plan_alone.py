"""preflight=plan, and preflight=only without the release's weights: a memory plan alone."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from tinyflux_pl.app.preflight.verdict import ONLY
from tinyflux_pl.app.reporting import tables
from tinyflux_pl.config import schema
from tinyflux_pl.config.schema import Train

PLAN = "plan"
Recipe = Callable[[dict[str, Any]], int | float | list[float]]


def with_plan_alone(recipe: Recipe) -> Recipe:
    """Decorate train.py's recipe to stop after a plan that needs neither weights nor device."""

    @functools.wraps(recipe)
    def planned(plain: dict[str, Any]) -> int | float | list[float]:
        if plain.get("preflight") not in (PLAN, ONLY) or plain.get("replay"):
            return recipe(plain)
        config = schema.read(plain, "train")
        lacks_weights = config.preflight == ONLY and _lacks_weights(config)
        if config.stages or config.simulate or not (config.preflight == PLAN or lacks_weights):
            return recipe(plain)
        from tinyflux_pl.app.memory import training_memory
        from tinyflux_pl.app.reporting import report

        report.division(training_memory.plan_without_device(config))
        if lacks_weights:
            tables.line("preflight: the plan fits; to check the rest: model.weights=FOLDER")
        return 0

    return planned


def _lacks_weights(config: Train) -> bool:
    """True for a release whose weights are not named."""
    model = config.model
    named = model.get("weights") or config.init or model.get("random_weights")
    return "weights" in model and not named
