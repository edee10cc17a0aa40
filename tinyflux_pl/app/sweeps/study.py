"""The trials of a search: asked for, reported, and asked for again after a kill."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyflux_pl.app.sweeps import rows, space, study_file
from tinyflux_pl.app.sweeps.rows import Row
from tinyflux_pl.config.hydra_options import Search
from tinyflux_pl.core import rng
from tinyflux_pl.core.errors import ConfigError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial

FILE = "study.journal"
QUESTION = "question"  # attribute of the study: what it searches for
LOST = "lost"  # attribute of a trial whose process died: it is run again under another number
MOST_LOSSES = 3  # of one trial, within one search


@dataclass
class Trials:
    """The trials of one study; no other process asks for trials of it."""

    file: Path
    settings: Search
    space: Mapping[str, BaseDistribution]
    metrics: Sequence[str]

    def __post_init__(self) -> None:
        self.study: Study = study_file.create(self.file, self.settings.directions)

    def require_same_question(self, fixed: Sequence[str]) -> None:
        """Raise ConfigError if the file's study has other values, metrics or fixed keys."""
        from optuna.distributions import distribution_to_json

        question = {
            "space": {key: distribution_to_json(dist) for key, dist in self.space.items()},
            "metrics": list(self.metrics),
            "directions": self.settings.directions,
            "fixed": sorted(fixed),
        }
        stored = self.study.user_attrs.get(QUESTION)
        if stored is None:
            self.study.set_user_attr(QUESTION, question)
        elif stored != question:
            changed = [name for name in question if stored.get(name) != question[name]]
            raise ConfigError(
                f"this folder holds another search: its {' and '.join(changed)} differ",
                where=str(self.file),
                cure="give its own line again to continue it, or another name: run=NAME",
            )

    def ask(self) -> dict[int, dict[str, Any]]:
        """Number -> values of the next trials, at most n_jobs; none once there are n_trials."""
        missing = self.settings.n_trials - self._count()
        batch: dict[int, dict[str, Any]] = {}
        for _ in range(min(missing, self.settings.n_jobs)):
            if self.settings.sampler == "grid" and not self._enqueue_next():
                break
            self.study.sampler = self._sampler()
            trial = self.study.ask(fixed_distributions=dict(self.space))
            batch[trial.number] = dict(trial.params)
        return batch

    def tell(self, number: int, row: Row | None, *, again: bool = False) -> None:
        """Report the end of a trial to the study; a lost one is run again.

        `again`: also one that was lost several times.
        """
        from optuna.trial import TrialState

        value = row.value if row is not None else None
        numbers = value if isinstance(value, list) else [value]
        is_finite = all(v is not None and math.isfinite(v) for v in numbers)
        if row is None or row.state == rows.INTERRUPTED:
            self._lose(number, again)
        elif row.state == rows.PRUNED:
            self.study.tell(number, state=TrialState.PRUNED)
        elif row.state == rows.FINISHED and is_finite:
            self.study.tell(number, value, state=TrialState.COMPLETE)
        else:
            self.study.tell(number, state=TrialState.FAIL)

    def recover(self, collected: Mapping[int, Row]) -> int:
        """End the trials that a killed search left running; returns how many will run again.

        Raises ConfigError if one of them is still alive.
        """
        lost = 0
        for trial in self._trials("RUNNING"):
            row = collected.get(trial.number)
            if row is not None and row.state == rows.RUNNING:
                raise ConfigError(
                    f"trial {trial.number} of this search is still run by process {row.owner}",
                    where=row.folder,
                    cure="wait for it, or stop it",
                )
            self.tell(trial.number, row, again=True)
            lost += row is None or row.state == rows.INTERRUPTED
        return lost

    def best(self) -> list[FrozenTrial]:
        """The best trial so far; with several metrics the Pareto front."""
        return self.study.best_trials if self._trials("COMPLETE") else []

    def lost(self) -> set[int]:
        """The numbers of the trials that run again under another number."""
        return {t.number for t in self.study.get_trials(deepcopy=False) if LOST in t.user_attrs}

    def _trials(self, *states: str) -> list[FrozenTrial]:
        from optuna.trial import TrialState

        return self.study.get_trials(deepcopy=False, states=[TrialState[s] for s in states])

    def _count(self) -> int:
        """Number of trials that ended by themselves."""
        ended = self._trials("COMPLETE", "PRUNED", "FAIL")
        return sum(LOST not in trial.user_attrs for trial in ended)

    def _lose(self, number: int, again: bool) -> None:
        from optuna.trial import Trial, TrialState

        frozen = self.study.get_trials(deepcopy=False)[number]
        losses = frozen.user_attrs.get("losses", 0) + 1
        will_run = again or losses < MOST_LOSSES
        if will_run:
            Trial(self.study, frozen._trial_id).set_user_attr(LOST, True)
        self.study.tell(number, state=TrialState.FAIL)
        if will_run and self.settings.sampler != "grid":  # a grid sees that its values are missing
            self.study.enqueue_trial(frozen.params, user_attrs={"losses": losses})

    def _enqueue_next(self) -> bool:
        """Enqueue the next combination of a grid that no trial has; False if there is none."""
        from optuna.trial import TrialState

        every = self.study.get_trials(deepcopy=False)
        waiting = [trial for trial in every if trial.state == TrialState.WAITING]
        if waiting:
            return True
        tried = [trial.params for trial in every if LOST not in trial.user_attrs]
        choices = [space.values(key, dist) for key, dist in self.space.items()]
        for combination in product(*choices):
            params = dict(zip(self.space, combination, strict=True))
            if params not in tried:
                self.study.enqueue_trial(params)
                return True
        return False

    def _sampler(self) -> Any:
        """A sampler for the next trial, seeded by the seed and the trial's number."""
        from optuna.samplers import RandomSampler, TPESampler

        settings = self.settings
        count = len(self.study.get_trials(deepcopy=False))
        seed = rng.derive(settings.seed, "search", 0, count) % 2**32
        if settings.sampler != "tpe":
            return RandomSampler(seed=seed)
        return TPESampler(
            seed=seed,
            n_startup_trials=settings.startup_trials,
            constant_liar=settings.n_jobs > 1,
        )
