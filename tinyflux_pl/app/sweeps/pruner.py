"""Pruning: a trial reports its metric to the study, which decides if it continues."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyflux_pl.app.fitting.optimized_metric import LOGGED_AS
from tinyflux_pl.app.sweeps import study_file
from tinyflux_pl.config.hydra_options import Search
from tinyflux_pl.config.schema import Train
from tinyflux_pl.core.rank import is_rank_zero

if TYPE_CHECKING:
    from optuna.study import Study

    from tinyflux_pl.training.last_values import LastValues
    from tinyflux_pl.training.pruning import Pruning

ATTRIBUTE = "pruner"
# prefix of a logged metric -> the key that says how often it is measured
INTERVALS = {
    "train/": ("callbacks", "log_every_steps"),
    "validation/": ("callbacks", "validation", "every_steps"),
    "preview/": ("callbacks", "preview", "every_steps"),
}


def store(study: Study, settings: Search, metrics: Sequence[str]) -> None:
    """Store the pruner's settings in the study, for its trials."""
    options = {
        "n_startup_trials": settings.pruner_startup_trials,
        "n_warmup_steps": settings.pruner_warmup_steps,
    }
    value = None if settings.pruner is None else {"metric": metrics[0], "options": options}
    study.set_user_attr(ATTRIBUTE, value)


def interval(config: Mapping[str, Any], name: str) -> int:
    """Steps between two values of a logged metric; 0 if it is measured only at the end."""
    for prefix, keys in INTERVALS.items():
        if name.startswith(prefix):
            node: Any = config
            for key in keys:
                node = node[key]
            return int(node)
    return 0


def callback(config: Train, logged: LastValues) -> list[Pruning]:
    """The pruning callback of a trial; None for any other run."""
    from tinyflux_pl.training.pruning import Pruning

    if config.trial is None:
        return []
    import optuna

    study = study_file.load(Path(config.trial["study"]), optuna.pruners.NopPruner())
    stored = study.user_attrs.get(ATTRIBUTE)
    if stored is None:
        return []
    study.pruner = optuna.pruners.MedianPruner(**stored["options"])
    name = LOGGED_AS.get(stored["metric"], stored["metric"])
    report = _report(study, int(config.trial["number"])) if is_rank_zero() else None
    return [Pruning(report, name, logged, interval(config.plain, name), config.steps)]


def _report(study: Study, number: int) -> Callable[[float, int], bool]:
    from optuna.trial import Trial

    trial = Trial(study, study.get_trials(deepcopy=False)[number]._trial_id)

    def report(value: float, step: int) -> bool:
        trial.report(value, step)
        return trial.should_prune()

    return report
