"""Every error a user can meet. Each says what is wrong, where, and what to do."""

from __future__ import annotations

import signal


class TinyFluxError(Exception):
    """An error of three lines: what happened, where, and the cure."""

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", cure: str = "") -> None:
        self.what, self.where, self.cure = what, where, cure
        lines = [what]
        if where:
            lines.append(f"  where: {where}")
        if cure:
            lines.append(f"  do:    {cure}")
        super().__init__("\n".join(lines))


class ConfigError(TinyFluxError):
    """A key, a value or a group choice that does not exist or does not fit."""

    exit_code = 2


class Interrupted(TinyFluxError):
    """A run that stopped after a signal, at a point where nothing is lost."""

    everywhere = False  # whether every rank of the run stops with it

    def __init__(
        self, number: int, *, where: str = "", cure: str = "give the same command again"
    ) -> None:
        self.number, self.exit_code = number, 128 + number  # as a shell tells it
        super().__init__(f"stopped by {signal.Signals(number).name}", where=where, cure=cure)


class Pruned(TinyFluxError):
    """A trial of a search that ended early, since others were better at the same step."""

    exit_code = 0

    def __init__(self, metric: str, value: float, step: int) -> None:
        self.value = value
        super().__init__(f"pruned at step {step:,}: {metric} is {value:.4g}")


class DataError(TinyFluxError):
    """A dataset that cannot be read as it is."""


class ImageError(DataError):
    """A file that is not a whole, bounded, decodable image."""


class CaptionError(DataError):
    """A caption that is missing, empty, or not text."""


class StaleCache(TinyFluxError):
    """A cache made from other inputs than those of this run."""


class CorruptStore(TinyFluxError):
    """A shard or manifest whose bytes changed after it was written."""


class SpecMismatch(TinyFluxError):
    """Two components whose declared shapes differ: codec, text encoder, denoiser, store."""


class CheckpointMismatch(TinyFluxError):
    """Weights whose keys or shapes are not those of the network."""

    exit_code = 2


class CorruptCheckpoint(TinyFluxError):
    """A checkpoint that is truncated, incomplete or altered."""

    exit_code = 2


class CaptureError(TinyFluxError):
    """A teacher whose features could not be captured, or were not finite."""


class NumericsError(TinyFluxError):
    """Nonfinite weights, or too many steps with nonfinite or exploding loss or gradient."""


class MissingDependency(TinyFluxError):
    """A package of an optional extra that is not installed."""


class DiskFull(TinyFluxError):
    """Not enough space for what has to be written."""


class NotWritable(TinyFluxError):
    """A path that this user may not write to, or not read."""


class MemoryPlanError(TinyFluxError):
    """A run that needs more memory than there is."""


class UntrustedFile(TinyFluxError):
    """A file that would have to be unpickled, or that leaves its folder."""

    exit_code = 2


class HubError(TinyFluxError):
    """A remote repository that is unpinned, unreachable or lacks safe weights."""

    exit_code = 2
