"""A dry run: a few steps of a throw-away copy of the run, to measure memory and time.

One idea in three files: app/preflight/dry_run_setup.py builds the copy from the run's own parts,
dry_run_fit.py fits it without side effects, and DryRun, here, is the callback that measures.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer

from tinyflux_pl.checkpoints import directory
from tinyflux_pl.checkpoints.round_trip import require_same
from tinyflux_pl.core import interruption
from tinyflux_pl.core.types import Batch
from tinyflux_pl.engine import peak_memory
from tinyflux_pl.engine.live_bytes import Growth, LiveBytes, Moment, growth, storage_bytes
from tinyflux_pl.engine.memory_plan import MemoryPlan, training, training_state
from tinyflux_pl.objectives.validation import FixedGrid
from tinyflux_pl.sampling.loop import evaluating
from tinyflux_pl.training import optimizer_states
from tinyflux_pl.training.checkpoint_schedule import CheckpointSchedule
from tinyflux_pl.training.flow_module import FlowModule
from tinyflux_pl.training.preview import Preview
from tinyflux_pl.training.saved_tensors import saved_tensors

# Small steps of 1, 1 and 2 samples, in which tensors are counted; the first only creates gradients
# and the optimizer's state.
COUNTED_STEPS = 3
TIMED_STEPS = 2  # full steps whose time is measured, after one whose memory is


@dataclass
class DryRunStages:
    """The run's own pieces: batches and their full sizes, validation, preview and checkpoints.

    `batch(size, longest)` returns a batch, padded to the longest caption of the data if `longest`.
    `cure(stage, fits)` names the remedy for a stage that does not fit, where `fits` is the largest
    micro-batch that would, or 0.
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


class DryRun(Callback):
    """Predict the memory of full steps from small ones, then run and measure them.

    Stages that do not fit are refused before they run. `plan` and `measured` hold bytes by stage
    (measured None where the system has no counter); `seconds` the time of loading and computing a
    micro-batch, the optimizer, a validation batch, the preview and a save; `checkpoint_bytes` the
    size of the save on disk. Raises MemoryPlanError before the first full stage, CorruptCheckpoint
    if the save does not read back equal.
    """

    plan: MemoryPlan
    checkpoint_bytes: int

    def __init__(self, stages: DryRunStages) -> None:
        self.stages = stages
        self.working: dict[str, Growth] = {}
        self.measured: dict[str, int | None] = {}
        self.seconds: dict[str, float] = {}
        self._open = ExitStack()
        self._histories: list[list[Moment]] = []
        self._marks: list[float] = []

    def batches(self) -> Iterator[Batch]:
        """Small batches to count memory, one full batch to measure it, and full ones to time."""
        full = self.stages.micro_batch
        for size in (1, 1, min(2, full), full):
            yield self.stages.batch(size, True)
        for _ in range(TIMED_STEPS):
            started = time.perf_counter()
            batch = self.stages.batch(full, False)
            seconds = time.perf_counter() - started
            self.seconds["loading"] = min(self.seconds.get("loading", math.inf), seconds)
            yield batch

    def on_train_start(self, trainer: Trainer, pl_module: FlowModule) -> None:
        interruption.reinstall_handlers()  # Lightning has set signal handlers of its own

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: FlowModule, batch: Batch, batch_idx: int
    ) -> None:
        if batch_idx in (1, 2):
            gradients = [p.grad for p in pl_module.network.parameters()]
            live_bytes = LiveBytes(pl_module.device.type, gradients)
            self._count = self._open.enter_context(live_bytes)
        elif batch_idx == COUNTED_STEPS:
            self._open.enter_context(self._measure("step", pl_module.device))
        self._mark_time(pl_module)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: FlowModule, *_: Any) -> None:
        if len(self._marks) % 3 == 1:  # the first optimizer's step of a module with several
            self._mark_time(pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: FlowModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        self._mark_time(pl_module)
        self._open.close()
        interruption.poll()
        if batch_idx in (1, 2):
            self._histories.append(self._count.history)
        if batch_idx == COUNTED_STEPS - 1:
            self.working["step"] = Growth(*self._histories)
            self._count_validation_and_preview(pl_module)
            self._plan_memory(trainer, pl_module)
        if batch_idx <= COUNTED_STEPS:
            self._marks.clear()

    def on_exception(
        self, trainer: Trainer, pl_module: FlowModule, exception: BaseException
    ) -> None:
        self._open.close()

    def on_train_end(self, trainer: Trainer, pl_module: FlowModule) -> None:
        stages, device = self.stages, pl_module.device
        steps = [self._marks[i : i + 3] for i in range(0, len(self._marks), 3)]
        self.seconds["micro_batch"] = min(middle - start for start, middle, _ in steps)
        self.seconds["optimizer"] = min(end - middle for _, middle, end in steps)
        batch = stages.batch(stages.validation_batch, True)
        with self._measure("validation", device):
            self._validate(pl_module, batch)
        with self._measure("preview", device):
            stages.preview.sample(pl_module, stages.preview.prompts)
        name = f"step_{pl_module.step:07d}"
        with self._measure("save", torch.device("cpu")):
            stages.checkpoints.save(trainer, pl_module, name, name)
            path = stages.checkpoints.last
        assert path is not None
        self.checkpoint_bytes = sum(file.stat().st_size for file in path.iterdir())
        average = stages.checkpoints.average
        weights = saved_tensors(pl_module, pl_module.network.state_dict())
        averaged = None
        if average is not None:
            averaged = saved_tensors(pl_module, average.weights(pl_module.network))
        optimizer = optimizer_states.collect(pl_module.optimizer_names, trainer.optimizers)
        require_same(directory.read(path), weights, averaged, optimizer)
        self._add_state_bytes(trainer, pl_module)

    def _count_validation_and_preview(self, module: FlowModule) -> None:
        """Count both with one and two samples, after a first call that loads lazy parts."""
        stages, kind = self.stages, module.device.type
        first = stages.preview.prompts[:1]
        stages.preview.sample(module, first)
        average = stages.checkpoints.average
        # Inside `applied`: the raw weights set aside have a row of their own in the plan.
        with nullcontext() if average is None else average.applied(module.network):
            self.working["validation"] = growth(
                lambda size: self._validate(module, stages.batch(size, True)),
                stages.validation_batch,
                kind,
            )
            self.working["preview"] = growth(
                lambda size: stages.preview.sample(module, first * size), self._preview_batch, kind
            )

    @property
    def _preview_batch(self) -> int:
        return min(len(self.stages.preview.prompts), self.stages.preview.sampler.max_batch)

    def _validate(self, module: FlowModule, batch: Batch) -> None:
        average = self.stages.checkpoints.average
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode())
            stack.enter_context(evaluating(module.network))
            stack.enter_context(module.trainer.precision_plugin.forward_context())
            if average is not None:
                stack.enter_context(average.applied(module.network))
            self.stages.grid.errors(module.network, batch.to(module.device))

    def _plan_memory(self, trainer: Trainer, module: FlowModule) -> None:
        """Build the plan and require that it fits; the training state is in memory already."""
        stages, host = self.stages, module.device.type == "cpu"
        averaged = stages.checkpoints.average is not None
        groups = [group for each in trainer.optimizers for group in each.param_groups]
        saved = module.method.saved(module.network)
        state = training_state(module.network, groups, saved, averaged=averaged, ranks=stages.ranks)

        def plan_with(divisor: int) -> MemoryPlan:
            """The plan with 1 / `divisor` of the micro-batch."""
            sizes = {
                "step": stages.micro_batch // divisor,
                "validation": stages.validation_batch // divisor,
                "preview": self._preview_batch,
            }
            working = {name: count.at(sizes[name]) for name, count in self.working.items()}
            return training(state, working, host=host)

        self.plan = plan_with(1)
        free = peak_memory.available_bytes(module.device)
        budget = free + state.total
        divisors = (n for n in range(1, stages.micro_batch + 1) if stages.micro_batch % n == 0)
        fitting = (n for n in divisors if plan_with(n).worst(host).total <= budget)
        divisor = next(fitting, None)
        fits = 0 if divisor is None else stages.micro_batch // divisor
        cure = stages.cure(self.plan.worst(host).name, fits)
        self.plan.require(free, host=host, there=state.total, where=stages.where, cure=cure)
        if not host:
            free_on_host = peak_memory.available_bytes("cpu")
            cure = stages.cure("save", 0)
            self.plan.require(free_on_host, host=True, where=stages.where, cure=cure)

    def _add_state_bytes(self, trainer: Trainer, module: FlowModule) -> None:
        """Add the bytes of the tensors that were in memory before each stage."""
        average = self.stages.checkpoints.average
        parameters = list(module.network.parameters())
        state = [parameters, list(module.network.buffers()), [p.grad for p in parameters]]
        averages = {} if average is None else average.averages
        optimizers = [each.state_dict() for each in trainer.optimizers]
        total = storage_bytes(*state, *optimizers, averages)
        on_host = module.device.type == "cpu"
        for name, measured in self.measured.items():
            if measured is not None and (on_host or name != "save"):
                self.measured[name] = measured + total

    @contextmanager
    def _measure(self, stage: str, device: torch.device) -> Iterator[None]:
        started = time.perf_counter()
        with peak_memory.measured(device) as peak:
            yield
        self.measured[stage] = peak.bytes
        self.seconds[stage] = time.perf_counter() - started

    def _mark_time(self, module: FlowModule) -> None:
        if module.device.type == "cuda":
            torch.cuda.synchronize(module.device)
        self._marks.append(time.perf_counter())
