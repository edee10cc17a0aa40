"""A search: batches of trials up to n_trials, continued where an earlier command ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser

from tinyflux_pl.app.fitting.optimized_metric import LOGGED_AS
from tinyflux_pl.app.reporting import tables
from tinyflux_pl.app.sweeps import pruner, rows, space, table
from tinyflux_pl.app.sweeps.launch import launch, require_success
from tinyflux_pl.app.sweeps.study import FILE, Trials
from tinyflux_pl.config.bind import bind
from tinyflux_pl.config.hydra_options import Search
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.file_lock import locked
from tinyflux_pl.core.rank import is_rank_zero

# words that decide where or how often a search runs, not what it searches
FREE = ("hydra.", "hydra/", "hparams_search=", "resume=", "run=")
LOCK = ".search.lock"


def sweep(sweeper: Any, options: Mapping[str, Any], arguments: list[str]) -> None:
    """Run the missing trials of the study in the sweep's folder, and print the table.

    Raises ConfigError before the first trial for a search that cannot work, JobsFailed at the end
    if a trial failed. `sweeper` has config, hydra_context and launcher.
    """
    settings = bind(Search, dict(options), "hydra.sweeper")
    config = sweeper.config
    metrics = _metrics(config, settings)
    dimensions, fixed = _space(sweeper, settings, arguments)
    sweep_dir = Path(str(config.hydra.sweep.dir))
    sweep_dir.mkdir(parents=True, exist_ok=True)
    with locked(sweep_dir, LOCK, use="this search is being run"):
        trials = Trials(sweep_dir / FILE, settings, dimensions, metrics)
        trials.require_same_question([w for w in fixed if not w.lstrip("+~").startswith(FREE)])
        pruner.store(trials.study, settings, metrics)
        collected = {row.number: row for row in table.write(sweep_dir)}
        if lost := trials.recover(collected):
            tables.line(f"trials of an interrupted search that run again: {lost}")
        try:
            while batch := trials.ask():
                jobs = {
                    number: [*fixed, *(space.line(key, value) for key, value in params.items())]
                    for number, params in batch.items()
                }
                sweeper.validate_batch_is_legal(list(jobs.values()))
                ended = launch(sweeper, jobs)
                for number in jobs:
                    trials.tell(number, ended.get(number))
                _show_best(trials)
        finally:
            collected = {row.number: row for row in table.show(sweep_dir)}
    require_success(sweep_dir, _finished_rows(trials, list(collected.values())))


def _metrics(config: Any, settings: Search) -> list[str]:
    """The metrics that the trials return; ConfigError where the sweeper cannot use them."""
    metric = config.get("optimized_metric")
    metrics = [] if metric is None else [metric] if isinstance(metric, str) else list(metric)
    if not is_rank_zero():
        what = "a search starts its trials itself"
        cure = "start it as one process; hardware.devices=N gives every trial its ranks"
        raise ConfigError(what, where="the launcher", cure=cure)
    if not metrics:
        cure = "optimized_metric=validation_loss"
        raise ConfigError("a search needs a metric", where="optimized_metric", cure=cure)
    if len(metrics) != len(settings.directions):
        what = f"{len(settings.directions)} directions for {len(metrics)} metrics"
        cure = "a direction for each of optimized_metric: [minimize,maximize]"
        raise ConfigError(what, where="hydra.sweeper.direction", cure=cure)
    if settings.pruner is not None:
        name = LOGGED_AS.get(metrics[0], metrics[0])
        every = pruner.interval(config, name)
        if len(metrics) > 1 or not every:
            what = f"nothing measures {' and '.join(metrics)} while a trial trains"
            if len(metrics) > 1:
                what = "no trial is pruned by several metrics"
            cure = "hydra.sweeper.pruner=null, or optimized_metric=validation_loss"
            raise ConfigError(what, where="hydra.sweeper.pruner", cure=cure)
    return metrics


def _space(sweeper: Any, settings: Search, arguments: Sequence[str]) -> tuple[Any, list[str]]:
    """The distributions and the fixed lines; the command line's values replace the file's."""
    parser = OverridesParser.create(config_loader=sweeper.hydra_context.config_loader)
    of_line = parser.parse_overrides(list(arguments))
    keys = {override.get_key_element() for override in of_line}
    lines = [f"{key}={values}" for key, values in (settings.params or {}).items()]
    of_file = [o for o in parser.parse_overrides(lines) if o.get_key_element() not in keys]
    dimensions, fixed = space.split([*of_file, *of_line])
    if not dimensions:
        cure = "'optimizer.lr=tag(log,interval(1e-4,1e-2))', or hydra.sweeper.params in a file"
        raise ConfigError("nothing to search", where="the command line", cure=cure)
    if settings.sampler == "grid":
        for key, dist in dimensions.items():
            space.values(key, dist)
    return dimensions, fixed


def _show_best(trials: Trials) -> None:
    for best in trials.best():
        values = ", ".join(
            f"{name} {value:.4g}" for name, value in zip(trials.metrics, best.values, strict=True)
        )
        lines = " ".join(space.line(key, value) for key, value in best.params.items())
        tables.line(f"best so far: trial {best.number}, {values}: {lines}")


def _finished_rows(trials: Trials, collected: Sequence[rows.Row]) -> list[rows.Row]:
    """The rows of finished trials that were not replaced by a later attempt."""
    again = trials.lost()
    return [row for row in collected if row.number not in again]
