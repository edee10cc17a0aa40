"""The metric that train.py returns to a sweeper: of results.json, or the last one logged."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tinyflux_pl.app.caches.sources import Source
from tinyflux_pl.config.schema import Train
from tinyflux_pl.config.signatures import suggestion
from tinyflux_pl.core.errors import ConfigError

ACCURACIES = ("prompt_accuracy", "prompt_accuracy_held_out")
RESULTS = (
    "validation_loss",
    *ACCURACIES,
    "images_per_second",
    "seconds",
    "peak_memory_bytes",
    "parameters",
    "steps",
)
# results that are also logged while the run trains, under these names
LOGGED_AS = {
    "validation_loss": "validation/loss",
    "prompt_accuracy": "preview/accuracy_all",
    "images_per_second": "train/images_per_second",
}
_ACCURACY = re.compile(r"preview/accuracy_\w+", re.ASCII)
_RATE = re.compile(r"train/learning_rate_\d+", re.ASCII)


def names(config: Train) -> tuple[str, ...]:
    """The metrics that the run asks for: none, one, or several."""
    metric = config.optimized_metric
    if metric is None:
        return ()
    return (metric,) if isinstance(metric, str) else tuple(metric)


def check(config: Train) -> None:
    """Raise ConfigError for a metric that no run of this configuration can have."""
    possible = [*RESULTS, *_logged(config)]
    for name in names(config):
        if name not in possible and not _ACCURACY.fullmatch(name) and not _is_rate(name, config):
            raise ConfigError(
                f"this run has no metric {name!r}",
                where="optimized_metric",
                cure=f"{suggestion(name, possible)}there are: {', '.join(possible)}",
            )


def check_data(config: Train, sources: Sequence[Source]) -> None:
    """Raise ConfigError for an accuracy of data whose pictures no verifier reads."""
    accuracies = [n for n in names(config) if n in ACCURACIES or _ACCURACY.fullmatch(n)]
    splits = [split for source in sources for split in source.train.records.prompt_splits]
    for name in accuracies:
        has_split = name != "prompt_accuracy_held_out" or "held_out" in splits
        if not splits or not has_split:
            raise ConfigError(
                f"no verifier measures {name} of these pictures",
                where="optimized_metric",
                cure="optimized_metric=validation_loss, which all data has",
            )


def value(
    config: Train, results: Mapping[str, Any], logged: Mapping[str, float]
) -> float | list[float] | None:
    """The result of train.py: a number, one for each of several metrics, or None where none is
    asked for.

    `logged` holds the last value of each metric. ConfigError for one that was never logged.
    """
    numbers = []
    for name in names(config):
        number = results[name] if name in RESULTS else logged.get(name)
        if number is None:
            raise ConfigError(
                f"{name} was never measured",
                where="optimized_metric",
                cure=f"this run measured {', '.join([*RESULTS, *logged])}",
            )
        numbers.append(float(number))
    return numbers if isinstance(config.optimized_metric, list) else next(iter(numbers), None)


def _logged(config: Train) -> list[str]:
    """The names that the run's callbacks log, apart from those that the data decides."""
    logged = ["validation/loss"]
    logged += [f"validation/loss_t_{time:g}" for time in config.callbacks.validation.times]
    if 0 < config.callbacks.log_every_steps <= config.steps:
        terms = ("loss", "flow", *config.experts, "gradient_norm")
        terms += ("skipped_steps", "images_per_second")
        logged += [f"train/{term}" for term in terms]
    return logged


def _is_rate(name: str, config: Train) -> bool:
    is_logged = 0 < config.callbacks.log_every_steps <= config.steps
    return is_logged and _RATE.fullmatch(name) is not None
