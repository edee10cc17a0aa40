"""Loggers of whole runs: facts, samples, results and ending, besides scalars."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger

from tinyflux_pl.training.run_identity import Identity

Plain = str | int | float | bool | None
Rows = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class RunFacts:
    """Facts of a run before its first step; nothing in it is secret.

    `configuration` and `provenance` map keys with slashes to plain values; `tables` are those of
    the preflight: (name, rows of a label and a text).
    """

    identity: Identity
    configuration: Mapping[str, Plain] = field(default_factory=dict)
    provenance: Mapping[str, Plain] = field(default_factory=dict)
    tables: Sequence[tuple[str, Rows]] = ()


@dataclass(frozen=True)
class Samples:
    """Pictures (N, 3, H, W) in [-1, 1] of one step with their captions, and all on one sheet.

    Picture i is drawn from (seed, i).
    """

    step: int
    seed: int
    captions: Sequence[str]
    pictures: Any
    sheet: Any  # PIL


@dataclass(frozen=True)
class Ending:
    """The end of a run: finished, failed, interrupted or pruned; `error` is redacted."""

    state: str
    exit_code: int = 0
    error: str = ""


class RunLogger(Logger, ABC):
    """A logger of a whole run; its methods are called on rank 0, in this order."""

    @abstractmethod
    def begin(self, facts: RunFacts) -> None:
        """Record the facts before the first step."""

    @abstractmethod
    def log_samples(self, samples: Samples) -> None:
        """Record the previews of a step."""

    @abstractmethod
    def log_results(self, results: Mapping[str, float]) -> None:
        """Record the closing results, by catalogued name."""

    @abstractmethod
    def finish(self, ending: Ending) -> None:
        """Close the record; nothing is logged afterwards."""


def run_loggers(trainer: Trainer) -> list[RunLogger]:
    """The trainer's loggers that record whole runs."""
    return [logger for logger in trainer.loggers if isinstance(logger, RunLogger)]
