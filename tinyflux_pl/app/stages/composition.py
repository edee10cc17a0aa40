"""The configuration of each stage, composed as train.py composes its own command line."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyflux_pl.app.cli.check_line import CONF, check_line
from tinyflux_pl.config import command_words
from tinyflux_pl.config.schema import Train
from tinyflux_pl.config.stage_schema import Stage, Until
from tinyflux_pl.core.errors import ConfigError, TinyFluxError

# words of the command that belong to it alone, and words that would mean another thing in a stage
OF_COMMAND = ("experiment", "run", "resume", "resume_changed", "stages", "preflight")
REFUSED = ("init", "replay", "optimized_metric", "export_teacher", "hparams_search")
OF_STAGE = ("run", "resume", "stages", "preflight")


@dataclass(frozen=True)
class PlannedStage:
    """A stage: its name, its run folder, and its command line, without links to other runs."""

    name: str
    folder: Path
    keys: Stage
    words: tuple[str, ...]
    flags: tuple[str, ...]

    def lines(self, runs: Mapping[str, Path]) -> list[str]:
        """All overrides, with the folders of earlier stages' runs by name."""
        links = [assignment(key, str(runs[source])) for key, source in self.keys.link.items()]
        return [*self.words, *links]

    def configuration(self, runs: Mapping[str, Path]) -> dict[str, Any]:
        """The plain configuration; ConfigError for one that train.py would refuse."""
        lines = self.lines(runs)
        flags = [shlex.split(flag)[0] for flag in self.flags]
        plain = check_line([*flags, *lines], CONF, "train").jobs[0]
        typed = [command_words.override(line) for line in lines]
        return {**plain, "run_dir": str(self.folder), "overrides": typed, "flags": [*self.flags]}


def plan_stages(config: Train) -> list[PlannedStage]:
    """The stages of a command, in order; overrides of the command line apply to every stage."""
    common = _common_words(config.overrides)
    stages = []
    for name, keys in config.stages.items():
        _refuse(keys.overrides, OF_STAGE, f"stages.{name}.overrides")
        added = [*_until(keys.until), assignment("run", f"{config.run}/{name}")]
        specific = [line for line in (*keys.overrides, *added) if _key(line) not in _keys(common)]
        words = (*specific, *common)
        stages.append(
            PlannedStage(name, Path(config.run_dir) / name, keys, words, tuple(config.flags))
        )
    return stages


def stage_error(name: str, error: TinyFluxError) -> ConfigError:
    """A configuration error with the stage's name added."""
    return ConfigError(f"stage {name!r}: {error.what}", where=error.where, cure=error.cure)


def _common_words(overrides: Sequence[str]) -> list[str]:
    """The command's overrides for all stages; ConfigError for keys that only one can have."""
    words = [shlex.split(line)[0] for line in overrides]
    words = [line for line in words if not _belongs_to_command(_key(line))]
    _refuse(words, REFUSED, "the command line")
    return words


def _belongs_to_command(key: str) -> bool:
    """True for a key of the command as a whole, which no stage gets."""
    if key.startswith("hydra"):
        return key != "hydra.searchpath"
    return key.partition(".")[0] in OF_COMMAND


def _refuse(lines: Sequence[str], keys: Sequence[str], where: str) -> None:
    """Raise ConfigError for an override of one of the keys."""
    for line in lines:
        if _key(line) in keys:
            cure = "give it to one stage, or to a run of its own"
            raise ConfigError(f"{_key(line)}= has no meaning here", where=where, cure=cure)


def _until(until: Until | None) -> list[str]:
    """The overrides of an early stop at a threshold."""
    if until is None:
        return []
    key = "callbacks.early_stopping"
    return [
        "callbacks=[default,early_stopping]",
        f"{key}.monitor={until.metric}",
        f"{key}.mode={until.mode}",
        f"{key}.stopping_threshold={until.threshold}",
        f"{key}.patience={10**9}",
    ]


def _key(line: str) -> str:
    return line.partition("=")[0].lstrip("+~").partition("@")[0]


def _keys(lines: Sequence[str]) -> set[str]:
    return {_key(line) for line in lines}


def assignment(key: str, text: str) -> str:
    """A Hydra override that sets a key to a text."""
    from hydra.core.override_parser.types import Quote, QuotedString

    return f"{key}={QuotedString(text=text, quote=Quote.single).with_quotes()}"
