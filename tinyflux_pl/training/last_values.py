"""The last value of every metric that a run logs, in memory."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only


class LastValues(Logger):
    """A logger without a file: name -> (value, step) of the last log, on rank 0."""

    def __init__(self) -> None:
        super().__init__()
        self.at: dict[str, tuple[float, int]] = {}

    @property
    def name(self) -> str:
        return "last_values"

    @property
    def version(self) -> str:
        return ""

    @property
    def values(self) -> dict[str, float]:
        """Name -> value."""
        return {name: value for name, (value, _) in self.at.items()}

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *_: Any, **__: Any) -> None:
        """Do nothing: only metrics are kept."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Keep each value with its step."""
        self.at |= {name: (float(value), step or 0) for name, value in metrics.items()}
