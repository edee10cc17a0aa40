"""The planned memory of a training run, and the division of its batch so that it fits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tinyflux_pl.app import hardware
from tinyflux_pl.app.components import Parts
from tinyflux_pl.app.experts import online_teacher
from tinyflux_pl.app.generated import drawn_pictures
from tinyflux_pl.app.memory.batch_sizes import Sizes, num_ranks, sizes
from tinyflux_pl.app.memory.planned_batch import planned_batch, planned_text
from tinyflux_pl.app.memory.planned_drawing import PlannedDrawing, encoder_bytes
from tinyflux_pl.app.memory.planned_parts import codec_bytes, without_unneeded_weights
from tinyflux_pl.app.memory.planned_text_step import text_activations
from tinyflux_pl.app.memory.training_plan import TrainingPlan
from tinyflux_pl.app.released import release_settings
from tinyflux_pl.config.build import build
from tinyflux_pl.config.schema import Train
from tinyflux_pl.core.errors import MemoryPlanError
from tinyflux_pl.core.types import Batch
from tinyflux_pl.engine import memory_plan, outline
from tinyflux_pl.engine.accelerator import AUTO, describe
from tinyflux_pl.engine.memory_plan import GIB, MemoryPlan, Stage

if TYPE_CHECKING:
    from tinyflux_pl.core.protocols import Objective

USABLE_SHARE = 0.9  # of the memory, for all that a plan counts; fragmentation takes the rest
# Micro-batch size below which checkpointing costs less than dividing further.
SMALL_MICRO_BATCH = 8


class Planner:
    """Plans one configuration's training on the meta device.

    `drawn` are the stages of pictures that are drawn before the first step.
    """

    def __init__(self, config: Train, drawn: Sequence[Stage] = ()) -> None:
        from tinyflux_pl.training.optimizers import build_optimizer

        self.hardware, self.drawn = config.hardware, drawn
        self.config = release_settings.with_release_settings(without_unneeded_weights(config))
        self.parts = Parts.built_from(self.config)
        self.codec, self.text = self.parts.codec, self.parts.text
        self.precision = self.parts.precision
        with torch.device("meta"):
            self.denoiser = self.parts.student()
        method = self.parts.method
        rates = method.rates(self.denoiser)
        self.optimizer = build_optimizer(self.denoiser, build(config.optimizer), rates)
        self.saved = method.saved(self.denoiser)
        self._steps: dict[bool, Any] = {}  # gradient checkpointing -> its activations

    def plan(self) -> TrainingPlan:
        """The configured division, or the first that fits; MemoryPlanError if none does."""
        plan = None
        for plan in self._candidates():
            if plan.fits:
                return plan
        assert plan is not None
        plan.require(self._cure(plan))
        return plan

    def _candidates(self) -> Iterator[TrainingPlan]:
        """Plans with ever more micro-batches; checkpointing comes before small micro-batches."""
        divisions = self._divisions()
        checkpointing = self.hardware.gradient_checkpointing
        if checkpointing != AUTO:
            yield from (self._plan(division, bool(checkpointing)) for division in divisions)
            return
        large = [d for d in divisions if d.on_rank >= SMALL_MICRO_BATCH] or divisions[:1]
        yield from (self._plan(division, False) for division in large)
        yield from (self._plan(division, True) for division in divisions)

    def _divisions(self) -> list[Sizes]:
        if self.hardware.accumulation != AUTO:
            return [sizes(self.hardware)]
        batch, ranks = self.hardware.batch_size, num_ranks(self.hardware)
        counts = [n for n in range(1, batch // ranks + 1) if batch % (n * ranks) == 0]
        if not counts:
            sizes(self.hardware.replace(accumulation=1))  # raises: the ranks do not divide it
        return [Sizes(batch // n, batch // n // ranks, n, ranks) for n in counts]

    def fits_idle(self) -> bool:
        """False if what a preview keeps beside its activations exceeds the memory already."""
        return self._idle <= self._limit

    def _plan(self, division: Sizes, checkpointing: bool) -> TrainingPlan:
        method, state, frozen = self.parts.method, self._state, self._frozen
        context = hardware.context_bytes(self.hardware)
        drawn = self._drawn_at_once(self._idle)
        working = {
            "step": self._step(checkpointing).at(division.on_rank),
            "validation": self._drawing.forward.at(division.micro_batch),
            "preview": self._drawing.activations(min(drawn, self.config.callbacks.preview.count)),
        }
        memory = memory_plan.training(state, working, host=False)
        stages = [s if s.host else replace(s, rows={**s.rows, **frozen}) for s in memory.stages]
        if encoders := encoder_bytes(self.text, in_turn=self.text.sequential is True):
            rows = {"codec": self._codec_bytes, "text encoders": encoders}
            stages.insert(0, Stage("encode", rows))
        if method.keeps_text and (read := self._text_step.at(division.on_rank)):
            rows = {"activations of text encoders": read}
            stages = [replace(s, rows=s.rows | rows) if s.name == "step" else s for s in stages]
        plan = MemoryPlan((*self.drawn, *stages)).reserving(context)
        base = method.base_precision
        return TrainingPlan(division, checkpointing, drawn, plan, self._limit, base)

    @cached_property
    def _state(self) -> memory_plan.TrainingState:
        groups, ranks = self.optimizer.param_groups, num_ranks(self.hardware)
        return memory_plan.training_state(self.denoiser, groups, self.saved, ranks=ranks)

    @cached_property
    def _frozen(self) -> dict[str, int]:
        """Bytes of networks that stand beside the student in each stage."""
        frozen = {"codec": self._codec_bytes}
        if teacher := online_teacher.resident_bytes(self.parts):
            frozen["teacher"] = teacher
        if self.parts.method.keeps_text and (kept := encoder_bytes(self.text, in_turn=False)):
            frozen["text encoders"] = kept
        return frozen

    @cached_property
    def _idle(self) -> int:
        """Bytes that a preview keeps beside its activations."""
        idle = memory_plan.training(self._state, {"preview": 0}, host=False).worst().total
        return idle + sum(self._frozen.values()) + hardware.context_bytes(self.hardware)

    def _drawn_at_once(self, idle: int) -> int:
        """The configured number of pictures, or the largest that fits beside `idle` bytes."""
        configured = self.hardware.drawn_at_once
        if configured != AUTO:
            return int(configured)
        counts = range(hardware.MAX_DRAWN, 1, -1)
        return next((n for n in counts if idle + self._drawing.activations(n) <= self._limit), 1)

    @cached_property
    def _limit(self) -> int:
        """The bytes to plan for: of the profile, else of this machine's accelerator."""
        configured = self.hardware.memory_gb
        total = configured * GIB if configured else describe(self.hardware.accelerator).total
        return int(total * USABLE_SHARE)

    @cached_property
    def _codec_bytes(self) -> int:
        return codec_bytes(self.codec)

    def _step(self, checkpointing: bool) -> Any:
        if checkpointing not in self._steps:
            if checkpointing:
                self.denoiser.enable_gradient_checkpointing()
            self._steps[checkpointing] = outline.step(self.denoiser, self._loss, self.precision)
        return self._steps[checkpointing]

    @cached_property
    def _objective(self) -> Objective:
        return self.parts.student_objective(planned_text(self.text.text_spec, 1))

    def _loss(self, samples: int) -> Tensor:
        batch = self._batch(samples).to("meta")
        terms = self._objective.loss(self.denoiser, batch, 0)
        return torch.stack(list(terms.values())).sum()

    @cached_property
    def _drawing(self) -> PlannedDrawing:
        guided = self.config.guidance.get("scale", 1) != 1
        parts = (self.denoiser, self.codec, self.text)
        return PlannedDrawing(*parts, self._batch, guided, self.precision)

    @cached_property
    def _text_step(self) -> outline.Linear:
        return text_activations(self.text, self.precision)

    def _batch(self, rows: int) -> Batch:
        return planned_batch(self.parts, self.denoiser, rows)

    def _cure(self, plan: TrainingPlan) -> str:
        choices = []
        if plan.memory.worst().name in (stage.name for stage in self.drawn):
            choices.append("pictures drawn elsewhere (data.class_root=, data.teacher_root=)")
        if self.hardware.accumulation != AUTO and plan.sizes.on_rank > 1:
            choices.append("hardware.accumulation=auto")
        if self.hardware.gradient_checkpointing is False:
            choices.append("hardware.gradient_checkpointing=auto")
        base_precision = self.config.method.get("base_precision", AUTO)
        if base_precision is None and self.parts.method.adds_to_base:
            choices.append("method.base_precision=auto")
        choices += ["smaller pictures (data.image_size=)", "a smaller model=", "a larger card"]
        return ", or ".join(choices)


def choose_division(config: Train) -> tuple[Train, TrainingPlan | None]:
    """The configuration with the batch's `auto` keys chosen, and the plan for it.

    No plan where memory is not planned. Raises MemoryPlanError if nothing fits.
    """
    config = hardware.resolve_auto(config)
    if not hardware.plans_memory(config.hardware):
        left_open = config.method.get("base_precision") == AUTO
        return (_with_base(config, None) if left_open else config), None
    config, plan = _cheapest(config, drawn_pictures.planned_stages(config))
    chosen = config.hardware.replace(
        accumulation=plan.sizes.accumulation,
        gradient_checkpointing=plan.gradient_checkpointing,
        drawn_at_once=plan.drawn_at_once,
    )
    return config.replace(hardware=chosen), plan


def _cheapest(config: Train, drawn: Sequence[Stage]) -> tuple[Train, TrainingPlan]:
    """The first plan that fits, with ever fewer bits of the base if base_precision=auto."""
    if config.method.get("base_precision") != AUTO or config.model.get("packed"):
        return config, Planner(config, drawn).plan()
    from tinyflux_pl.methods.base_precision import IN_TURN

    *before, last = (_with_base(config, name) for name in IN_TURN)
    for candidate in before:
        planner = Planner(candidate, drawn)
        if not planner.fits_idle():  # no activations have to be counted to say so
            continue
        with suppress(MemoryPlanError):
            return candidate, planner.plan()
    return last, Planner(last, drawn).plan()


def _with_base(config: Train, name: str | None) -> Train:
    return config.replace(method={**config.method, "base_precision": name})


def plan_without_device(config: Train) -> TrainingPlan:
    """The plan of preflight=plan; without an accelerator, of this machine's main memory."""
    resolved = hardware.resolved(config.hardware)
    if not hardware.plans_memory(resolved):
        memory = describe("cpu").total / GIB
        resolved = config.hardware.replace(accelerator="cpu", memory_gb=memory)
        config = config.replace(hardware=resolved)
    _, plan = choose_division(config)
    assert plan is not None, "its memory is set"
    return plan
