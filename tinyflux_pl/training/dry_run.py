"""A few steps of a throw-away copy of the run: what each stage takes, for how long, and one save read back."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from tinyflux_pl.checkpoints import directory
from tinyflux_pl.checkpoints.round_trip import require_same
from tinyflux_pl.core import interruption
from tinyflux_pl.core.types import Batch
from tinyflux_pl.engine import peak_memory
from tinyflux_pl.engine.live_bytes import Growth, LiveBytes, Moment, growth, held
from tinyflux_pl.engine.memory_plan import MemoryPlan, training, training_state
from tinyflux_pl.objectives.validation import FixedGrid
from tinyflux_pl.sampling.loop import evaluating
from tinyflux_pl.training.checkpoint_schedule import CheckpointSchedule
from tinyflux_pl.training.preview import Preview

COUNTED = 3  # small steps of 1, 1 and 2 samples; the very first makes gradients and the optimizer's state
TIMED = 2  # full steps that are timed, after one that is measured


@dataclass
class Stages:
    """What is rehearsed: how to make a batch of so many samples, the full sizes, and the run's own callbacks.

    A batch is asked for with the longest caption of the data (True) or as it comes. `cure` says what to
    change, given the stage that does not fit and the largest micro-batch that would, or 0.
    """

    batch: Callable[[int, bool], Batch]
    micro_batch: int  # samples on this rank
    validation_batch: int
    grid: FixedGrid
    preview: Preview
    checkpoints: CheckpointSchedule
    ranks: int
    where: str
    cure: Callable[[str, int], str]


class Rehearsal(Callback):
    """Counts three small steps, predicts the full ones, refuses what will not fit, then takes and measures them.

    `plan` and `measured` hold bytes by stage (measured None where this system has no counter), `seconds` what
    loading and computing a micro_batch, the optimizer, and a batch of validation, the preview and a save take;
    `checkpoint_bytes` is the size of the save on disk.
    Raises MemoryPlanError before the first full stage, CorruptCheckpoint if what is read is not what was saved.
    """

    plan: MemoryPlan
    checkpoint_bytes: int

    def __init__(self, stages: Stages) -> None:
        self.stages = stages
        self.working: dict[str, Growth] = {}
        self.measured: dict[str, int | None] = {}
        self.seconds: dict[str, float] = {}
        self._open = ExitStack()
        self._histories: list[list[Moment]] = []
        self._marks: list[float] = []

    def batches(self) -> Iterator[Batch]:
        """The small ones, a full one to measure, and full ones to time."""
        full = self.stages.micro_batch
        for size in (1, 1, min(2, full), full):
            yield self.stages.batch(size, True)
        for _ in range(TIMED):
            started = time.perf_counter()
            batch = self.stages.batch(full, False)
            self.seconds["loading"] = min(self.seconds.get("loading", math.inf), time.perf_counter() - started)
            yield batch

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        interruption.claim()  # Lightning has set handlers of its own

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        if batch_idx in (1, 2):
            gradients = [p.grad for p in pl_module.denoiser.parameters()]
            self._count = self._open.enter_context(LiveBytes(pl_module.device.type, gradients))
        elif batch_idx == COUNTED:
            self._open.enter_context(self._measuring("step", pl_module.device))
        self._mark(pl_module)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self._mark(pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        self._mark(pl_module)
        self._open.close()
        interruption.poll()
        if batch_idx in (1, 2):
            self._histories.append(self._count.history)
        if batch_idx == COUNTED - 1:
            self.working["step"] = Growth(*self._histories)
            self._count_others(pl_module)
            self._plan(trainer, pl_module)
        if batch_idx <= COUNTED:
            self._marks.clear()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._open.close()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        stages, device = self.stages, pl_module.device
        steps = [self._marks[i : i + 3] for i in range(0, len(self._marks), 3)]
        self.seconds["micro_batch"] = min(middle - start for start, middle, _ in steps)
        self.seconds["optimizer"] = min(end - middle for _, middle, end in steps)
        batch = stages.batch(stages.validation_batch, True)
        with self._measuring("validation", device):
            self._validate(pl_module, batch)
        with self._measuring("preview", device):
            stages.preview.sample(pl_module, stages.preview.prompts)
        name = f"step_{pl_module.step:07d}"
        with self._measuring("save", torch.device("cpu")):
            stages.checkpoints.save(trainer, pl_module, name, name)
            path = stages.checkpoints.last
        assert path is not None
        self.checkpoint_bytes = sum(file.stat().st_size for file in path.iterdir())
        average, weights = stages.checkpoints.average, pl_module.denoiser.state_dict()
        averaged = None if average is None else average.weights(pl_module.denoiser)
        require_same(directory.read(path), weights, averaged, trainer.optimizers[0].state_dict())
        self._add_what_is_held(trainer, pl_module)

    def _count_others(self, module: LightningModule) -> None:
        """Validation and preview with one sample and with two; first once, for what is loaded at first use."""
        stages, kind = self.stages, module.device.type
        first = stages.preview.prompts[:1]
        stages.preview.sample(module, first)
        average = stages.checkpoints.average
        # the raw weights that are set aside have a row of their own in the plan
        with nullcontext() if average is None else average.applied(module.denoiser):
            self.working["validation"] = growth(
                lambda size: self._validate(module, stages.batch(size, True)), stages.validation_batch, kind
            )
            self.working["preview"] = growth(
                lambda size: stages.preview.sample(module, first * size), self._drawn_at_once, kind
            )

    @property
    def _drawn_at_once(self) -> int:
        return min(len(self.stages.preview.prompts), self.stages.preview.sampler.max_batch)

    def _validate(self, module: LightningModule, batch: Batch) -> None:
        average = self.stages.checkpoints.average
        with ExitStack() as inside:
            inside.enter_context(torch.inference_mode())
            inside.enter_context(evaluating(module.denoiser))
            inside.enter_context(module.trainer.precision_plugin.forward_context())
            if average is not None:
                inside.enter_context(average.applied(module.denoiser))
            self.stages.grid.errors(module.denoiser, batch.to(module.device))

    def _plan(self, trainer: Trainer, module: LightningModule) -> None:
        """Put the plan together, and refuse it where less is free; the state itself is in memory already."""
        stages, host = self.stages, module.device.type == "cpu"
        average, groups = stages.checkpoints.average, trainer.optimizers[0].param_groups
        state = training_state(module.denoiser, groups, averaged=average is not None, ranks=stages.ranks)

        def planned(part: int) -> MemoryPlan:
            """With a `part`-th of the micro-batch."""
            sizes = {"step": stages.micro_batch // part, "validation": stages.validation_batch // part}
            sizes["preview"] = self._drawn_at_once
            return training(state, {name: count.at(sizes[name]) for name, count in self.working.items()}, host=host)

        self.plan, free = planned(1), peak_memory.available_bytes(module.device)
        parts = (n for n in range(1, stages.micro_batch + 1) if stages.micro_batch % n == 0)
        fits = next((stages.micro_batch // n for n in parts if planned(n).worst(host).total <= free + state.total), 0)
        cure = stages.cure(self.plan.worst(host).name, fits)
        self.plan.require(free, host=host, there=state.total, where=stages.where, cure=cure)
        if not host:
            spare = peak_memory.available_bytes("cpu")
            self.plan.require(spare, host=True, where=stages.where, cure=stages.cure("save", 0))

    def _add_what_is_held(self, trainer: Trainer, module: LightningModule) -> None:
        """To what each stage took, add what was in memory before it, as the tensors themselves say."""
        average = self.stages.checkpoints.average
        parameters = list(module.denoiser.parameters())
        state = [parameters, list(module.denoiser.buffers()), [p.grad for p in parameters]]
        total = held(*state, trainer.optimizers[0].state_dict(), {} if average is None else average.averages)
        on_host = module.device.type == "cpu"
        for name, found in self.measured.items():
            if found is not None and (on_host or name != "save"):
                self.measured[name] = found + total

    @contextmanager
    def _measuring(self, stage: str, device: torch.device) -> Iterator[None]:
        started = time.perf_counter()
        with peak_memory.measured(device) as found:
            yield
        self.measured[stage], self.seconds[stage] = found.bytes, time.perf_counter() - started

    def _mark(self, module: LightningModule) -> None:
        if module.device.type == "cuda":
            torch.cuda.synchronize(module.device)
        self._marks.append(time.perf_counter())
