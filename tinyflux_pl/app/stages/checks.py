"""Checks of all stages before the first one trains."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tinyflux_pl.app.cli.check_line import CONF, check_line
from tinyflux_pl.app.stages import finished, stand_in
from tinyflux_pl.app.stages.composition import PlannedStage, assignment, stage_error
from tinyflux_pl.config import schema
from tinyflux_pl.config.schema import Train
from tinyflux_pl.core.errors import ConfigError, TinyFluxError

FILLED_IN = ("run_dir", "stages", "overrides", "flags", "sweep", "swept", "trial")


def check(config: Train, stages: Sequence[PlannedStage]) -> frozenset[str]:
    """Compose and check every stage; returns the names of the finished ones.

    Untrained weights in a temporary folder stand in for runs that are not finished, so that the
    stages after them meet the sizes that they will have. ConfigError with the stage's name.
    """
    from tinyflux_pl.app.components import Parts
    from tinyflux_pl.app.fitting import optimized_metric
    from tinyflux_pl.app.memory import training_memory

    _require_no_other_keys(config)
    if config.resume is None:
        finished.require_new(stages)
    linked = {source for stage in stages for source in stage.keys.link.values()}
    done: list[str] = []
    with tempfile.TemporaryDirectory() as temporary:
        runs: dict[str, Path] = {}
        for number, stage in enumerate(stages):
            try:
                typed = schema.read(stage.configuration(runs), "train")
                optimized_metric.check(typed)
                parts = Parts.from_config(training_memory.choose_division(typed)[0])
                parts.check()
                if finished.is_finished(parts.config):
                    done.append(stage.name)
                    runs[stage.name] = stage.folder
                    continue
                finished.require_unused(stage.name, stages[number + 1 :])
                runs[stage.name] = Path(temporary) / stage.name
                if stage.name in linked:
                    stand_in.write(parts, runs[stage.name])
            except TinyFluxError as error:
                raise stage_error(stage.name, error) from error
    return frozenset(done)


def _require_no_other_keys(config: Train) -> None:
    """Raise ConfigError for a key beside the stages that no stage would read."""
    chosen = [line for line in config.overrides if line.startswith("experiment=")]
    if not chosen:
        return
    words = [shlex.split(line)[0] for line in config.overrides]
    words = [line for line in words if not line.lstrip("+").startswith(("experiment=", "stages"))]
    flags = [shlex.split(flag)[0] for flag in config.flags]
    words.append(assignment("run", str(config.run)))
    without = check_line([*flags, *words], CONF, "train").jobs[0]
    compared = config.plain.keys() - {*FILLED_IN}
    changed = [key for key in sorted(compared) if config.plain[key] != without.get(key)]
    if changed:
        raise ConfigError(
            f"no stage reads {', '.join(changed)} of {chosen[-1]}",
            where=chosen[-1],
            cure="write it into a stage's overrides, or on the command line for all stages",
        )
