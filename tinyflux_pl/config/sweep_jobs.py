"""The jobs of a line with swept values, as Hydra's sweeper would start them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice, product
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from omegaconf import DictConfig, OmegaConf

from tinyflux_pl.core.errors import ConfigError

MOST = 64  # jobs that are checked in every combination; of more, each value is checked once


def jobs(overrides: Sequence[Override]) -> list[list[str]]:
    """The overrides of each job, at least one.

    Beyond MOST, one job for each value of each swept key.
    """
    choices = [lines(override) for override in overrides]
    if math.prod(map(len, choices)) <= MOST:
        return [list(job) for job in product(*choices)]
    first = [options[0] for options in choices]
    changes = [(index, line) for index, options in enumerate(choices) for line in options[1:]]
    return [first, *([*first[:index], line, *first[index + 1 :]] for index, line in changes)]


def lines(override: Override) -> list[str]:
    """One override for each value of a sweep; the override itself if it is no sweep."""
    if not override.is_sweep_override():
        return [override.input_line or ""]
    return [f"{override.get_key_element()}={value}" for value in values(override)]


def values(override: Override) -> list[Any]:
    """The values of an override: one, both ends of an interval, or the first MOST of a range."""
    if not override.is_sweep_override():
        return [override.value()]
    sweep = override.value()
    if isinstance(sweep, IntervalSweep):
        return [sweep.start, sweep.end]
    swept = list(islice(override.sweep_string_iterator(), MOST))
    if not swept:
        raise ConfigError(
            f"nothing matches {override.input_line}",
            where="the command line",
            cure="name the choices",
        )
    return swept


def params(config: DictConfig, overrides: Sequence[Override]) -> list[str]:
    """The overrides that hydra.sweeper.params of a file adds to a sweep.

    The command line's keys replace them.
    """
    node = OmegaConf.select(config, "hydra.sweeper.params") or {}
    keys = {override.get_key_element() for override in overrides}
    return [f"{key}={value}" for key, value in node.items() if key not in keys]


def swept(job: Sequence[str], argv: Sequence[str]) -> list[str]:
    """The overrides of a job that a sweep chose: those without a single value in `argv`."""
    lines = [word for word in argv if "=" in word and not word.startswith("-")]
    parsed = OverridesParser.create().parse_overrides(lines)
    fixed = {each.get_key_element() for each in parsed if not each.is_sweep_override()}
    return [line for line in job if line.partition("=")[0] not in fixed]


def require_multirun(overrides: Sequence[Override]) -> None:
    """Raise ConfigError for several values of a key in a line without --multirun."""
    for override in overrides:
        if override.is_sweep_override():
            key, _, value = (override.input_line or "").partition("=")
            what = f"{override.input_line} gives one run several values"
            cure = (
                f"a run for each: add --multirun (-m); a list: {key}=[{value}]; a text: "
                f"{key}='\"{value}\"'"
            )
            raise ConfigError(what, where=key, cure=cure)
