"""The metric that train.py returns to a sweeper: of results.json, or the last logged value."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tinyflux_pl.app.caches.sources import Source
from tinyflux_pl.config.schema import Train
from tinyflux_pl.config.signatures import suggestion
from tinyflux_pl.core import metric_names
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.metric_names import MetricName

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


def names(config: Train) -> tuple[str, ...]:
    """The names of the metrics that the run asks for: zero, one or several."""
    metric = config.optimized_metric
    if metric is None:
        return ()
    return (metric,) if isinstance(metric, str) else tuple(metric)


def check(config: Train) -> None:
    """Raise ConfigError for a metric that no run of this configuration can have.

    Callbacks of callbacks.extra may log any name.
    """
    logged = _logged(config)
    for name in () if config.callbacks.extra else names(config):
        if name not in RESULTS and not any(entry.matches(name) for entry in logged):
            possible = [*RESULTS, *(entry.pattern for entry in logged)]
            raise ConfigError(
                f"this run has no metric {name!r}",
                where="optimized_metric",
                cure=f"{suggestion(name, possible)}there are: {', '.join(possible)}",
            )


def check_data(config: Train, sources: Sequence[Source]) -> None:
    """Raise ConfigError for the accuracy of data that no verifier can read."""
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
    """The result of train.py: a number, one per metric, or None if no metric is configured.

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


def _logged(config: Train) -> list[MetricName]:
    """Catalogued names that the run's callbacks log, resolved from the configuration."""
    keys = config.callbacks
    parts: dict[str, Sequence[str]] = {
        "{expert}": list(config.experts),
        "{term}": ["flow", *config.experts],
        "{time}": [f"{time:g}" for time in keys.validation.times],
    }
    logged = []
    for entry in metric_names.SCALARS:
        is_due = entry.when != metric_names.LOG_POINT or 0 < keys.log_every_steps <= config.steps
        is_off = entry.pattern.startswith("validation/seen_") and not keys.validation.seen
        if entry.when == metric_names.END or not is_due or is_off:
            continue
        field = next((field for field in parts if field in entry.pattern), None)
        values = [""] if field is None else parts[field]
        patterns = [entry.pattern.replace(field or "", value) for value in values]
        logged += [replace(entry, pattern=pattern) for pattern in patterns]
    return logged
