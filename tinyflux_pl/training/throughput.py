"""How fast, and with how much memory."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class Throughput(Callback):
    """Images a second of the whole run by the wall clock, from its first batch on: a batch's loading, its way to the
    device and its step, but not what is done `aside`.

    A GPU works behind the host: the rate is to be asked where the host has just waited for it, as at log points.
    """

    def __init__(self) -> None:
        self.images = 0
        self._before = 0.0  # seconds up to _since
        self._since: float | None = None  # None: the clock stands
        self._asked = (0, 0.0)
        self._device = torch.device("cpu")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._device = pl_module.device

    def on_train_batch_start(self, *_: Any) -> None:
        if self._since is None:
            self._since = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.images += len(batch) * trainer.world_size

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop()

    def since_last_asked(self) -> float:
        """Mean rate since the last call."""
        (images, seconds), self._asked = self._asked, (self.images, self.seconds)
        return (self._asked[0] - images) / max(self._asked[1] - seconds, 1e-9)

    @property
    def seconds(self) -> float:
        """What training has taken so far."""
        return self._before + (0.0 if self._since is None else time.perf_counter() - self._since)

    @property
    def images_per_second(self) -> float:
        """Mean rate so far."""
        seconds = self.seconds
        return self.images / seconds if seconds else 0.0

    def _stop(self) -> None:
        if self._device.type == "cuda":  # the steps under way are training still
            torch.cuda.synchronize(self._device)
        self._before, self._since = self.seconds, None

    @contextmanager
    def aside(self) -> Generator[None]:
        """What is done inside is no training."""
        running = self._since is not None
        if running:
            self._stop()
        try:
            yield
        finally:
            if running:
                self._since = time.perf_counter()


def aside(trainer: Trainer) -> AbstractContextManager[None]:
    """The `aside` of the trainer's Throughput, if it has one."""
    return next((c.aside() for c in trainer.callbacks if isinstance(c, Throughput)), nullcontext())


def peak_memory_bytes() -> int:
    """Peak resident memory of this process, or of the accelerator where one is used."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
