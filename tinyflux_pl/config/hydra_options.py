"""Options of launchers and sweepers: typed for those of the project, allowlisted for others."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tinyflux_pl.config.bind import Keys, bind
from tinyflux_pl.config.callback_schema import Count, Positive, Seed
from tinyflux_pl.core.errors import ConfigError

Direction = Literal["minimize", "maximize"]


@dataclass(frozen=True)
class Combinations(Keys):
    """Options of hydra/sweeper=basic, as the project's own sweeper reads them."""

    max_batch_size: int | None
    params: dict[str, Any] | None


@dataclass(frozen=True)
class Search(Keys):
    """Options of hydra/sweeper=optuna."""

    sampler: Literal["tpe", "random", "grid"]
    seed: Seed
    startup_trials: Count
    n_trials: Positive
    n_jobs: Positive
    direction: Direction | list[Direction]
    pruner: Literal["median"] | None
    pruner_startup_trials: Count
    pruner_warmup_steps: Count
    params: dict[str, Any] | None

    @property
    def directions(self) -> list[str]:
        """The direction of each metric."""
        return [self.direction] if isinstance(self.direction, str) else list(self.direction)


COMBINATIONS = "hydra_plugins.tinyflux_sweepers.Combinations"
SEARCH = "hydra_plugins.tinyflux_sweepers.Search"
SWEEPERS: dict[str, type[Keys]] = {COMBINATIONS: Combinations, SEARCH: Search}
JOBLIB = "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"
LOCAL = "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher"
SLURM = "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher"
_QUEUE = (
    "submitit_folder timeout_min cpus_per_task gpus_per_node tasks_per_node mem_gb nodes name "
    "stderr_to_stdout"
)
# without those that name commands (config/hydra_node.py), which are refused where they are set
_SLURM = (
    "partition qos comment constraint exclude gres cpus_per_gpu gpus_per_task mem_per_gpu "
    "mem_per_cpu account signal_delay_s max_num_timeout array_parallelism setup "
    "additional_parameters"
)
_JOBLIB = (
    "n_jobs backend prefer require verbose timeout pre_dispatch batch_size temp_folder max_nbytes "
    "mmap_mode"
)
OPTIONS = {
    JOBLIB: tuple(_JOBLIB.split()),
    LOCAL: tuple(_QUEUE.split()),
    SLURM: tuple(f"{_QUEUE} {_SLURM}".split()),
}
# joblib's options that choose where and how it pickles
FIXED = {
    "backend": (None, "loky"),
    "prefer": ("processes",),
    "require": (None,),
    "temp_folder": (None,),
    "max_nbytes": (None,),
    "mmap_mode": ("r",),
}
_DISPATCH = re.compile(r"all|auto|(?:\d+\*)?n_jobs|\d+", re.ASCII)  # joblib calculates it


def check_sweeper(node: Any) -> None:
    """Raise ConfigError for an unknown option of one of the project's sweepers."""
    kind = SWEEPERS.get(node.get("_target_")) if isinstance(node, Mapping) else None
    if kind is not None:
        bind(kind, {k: v for k, v in node.items() if k != "_target_"}, "hydra.sweeper")


def check_launcher(node: Any, sweep_dir: str | None) -> None:
    """Raise ConfigError for an invalid launcher option.

    That is an unlisted option, a line break, or a job folder outside the sweep's.
    """
    where = "hydra.launcher"
    _check_lines(node, where)
    options = OPTIONS.get(node.get("_target_")) if isinstance(node, Mapping) else None
    if options is None:
        return
    for key, value in node.items():
        if key == "_target_":
            continue
        if key not in options:
            what = f"a configuration may not set {key} of a launcher"
            raise ConfigError(what, where=f"{where}.{key}", cure=f"it has {', '.join(options)}")
        if key in FIXED and value not in FIXED[key]:
            cure = "leave it as it is: jobs are processes, and share no arrays"
            raise ConfigError(f"{key} may not be {value!r}", where=f"{where}.{key}", cure=cure)
        dispatches = key in ("pre_dispatch", "batch_size")
        if dispatches and not _DISPATCH.fullmatch(str(value)):
            cure = "all, a number, or 2*n_jobs"
            raise ConfigError(f"{key} may not be {value!r}", where=f"{where}.{key}", cure=cure)
    folder = node.get("submitit_folder")
    if folder is not None and not _is_inside(str(folder), sweep_dir):
        cure = "leave it ${hydra.sweep.dir}/.submitit/%j"
        what = f"jobs may not be written to {folder}"
        raise ConfigError(what, where=f"{where}.submitit_folder", cure=cure)


def _is_inside(folder: str, sweep_dir: str | None) -> bool:
    path = Path(folder)
    return sweep_dir is not None and path.is_relative_to(sweep_dir) and ".." not in path.parts


def _check_lines(node: Any, where: str) -> None:
    """Require options without line breaks: a launcher writes each on a line of a script."""
    if isinstance(node, str) and len(node.splitlines()) > 1:
        raise ConfigError(
            "an option of a launcher is one line", where=where, cure="leave the line break out"
        )
    pairs = (
        node.items()
        if isinstance(node, Mapping)
        else enumerate(node)
        if isinstance(node, list)
        else ()
    )
    for key, value in pairs:
        _check_lines(value, f"{where}.{key}")
