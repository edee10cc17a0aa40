"""The recipe of a command with stages: check all, then train the unfinished ones."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

from tinyflux_pl.app.cli.job_isolation import isolated
from tinyflux_pl.app.cli.sweep_job import ranks_run_this_job
from tinyflux_pl.app.reporting import tables
from tinyflux_pl.app.stages import checks, finished
from tinyflux_pl.app.stages.composition import PlannedStage, plan_stages
from tinyflux_pl.config.schema import Train
from tinyflux_pl.config.stage_schema import check_order
from tinyflux_pl.core.errors import ConfigError, Interrupted
from tinyflux_pl.core.rank import is_rank_zero

Recipe = Callable[[dict[str, Any]], Any]
FIGURES = ("validation_loss", "psnr_held_out", "ssim_held_out", "prompt_accuracy")
FIGURES += ("prompt_accuracy_held_out",)


def run(config: Train, train: Recipe) -> Any:
    """Train the stages in order with `train`; returns its result for the last.

    Every stage is composed and checked before the first one trains. With resume=auto finished
    stages are not run again, and an unfinished one continues from its newest checkpoint.
    """
    _require_possible(config)
    check_order(config.stages)
    stages = plan_stages(config)
    with _hydra_unchanged():
        done = checks.check(config, stages)
        result: Any = 0
        if config.preflight == "only":
            return result
        for number, stage in enumerate(stages, 1):
            tables.line(f"stage {number} of {len(stages)}: {stage.name}")
            if stage.name in done:
                tables.line(f"  finished before: {stage.folder}")
                continue
            result = _trained(stage, stages, config, train)
            if type(result) is int and result:
                return result
    if is_rank_zero():
        tables.show("stages", [_row(stage, before=stage.name in done) for stage in stages])
    return result


def _require_possible(config: Train) -> None:
    """Raise ConfigError for keys that do not work with stages."""
    if config.preflight == "plan":
        cure = "give it to each stage's own run"
        raise ConfigError("preflight=plan plans one run", where="preflight", cure=cure)
    if config.resume not in (None, "auto"):
        what = "stages continue where their own runs ended"
        raise ConfigError(what, where="resume", cure="resume=auto")


def _trained(
    stage: PlannedStage, stages: Sequence[PlannedStage], config: Train, train: Recipe
) -> Any:
    """Train one stage; an Interrupted error names the command of all stages."""
    from tinyflux_pl.app.fitting import resume

    runs = {other.name: other.folder for other in stages}
    plain = stage.configuration(runs)
    plain |= {key: config.plain[key] for key in ("preflight", "resume", "resume_changed")}
    try:
        with isolated(), ranks_run_this_job(sys.argv, stage.lines(runs), stage.folder):
            return train(plain)
    except Interrupted as stop:
        raise Interrupted(stop.number, where=stop.where, cure=resume.command(config)) from stop


def _row(stage: PlannedStage, *, before: bool) -> tuple[str, str]:
    """Name of the stage, and steps, time, reason of the end, results and folder."""
    measured = finished.results(stage.folder) or {}
    steps = f"{measured['steps']:,} steps in {measured['seconds'] / 60:.1f} min"
    words = [steps, *(["finished before"] if before else [])]
    figures = {name: measured[name] for name in FIGURES if name in measured}
    words += [f"{name} {value:.4g}" for name, value in figures.items()]
    return stage.name, f"{', '.join(words)}\n{stage.folder}"


@contextmanager
def _hydra_unchanged() -> Generator[None]:
    """Restore Hydra's global state after the block, in which configurations are composed."""
    from hydra.core.singleton import Singleton

    state = Singleton.get_state()
    try:
        yield
    finally:
        Singleton.set_state(state)
