"""The memory of a training run by arithmetic, and how its batch is divided so that it fits: nothing is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from tinyflux_pl.app.batch_sizes import Sizes, sizes
from tinyflux_pl.app.components import Parts
from tinyflux_pl.app.hardware import MOST_DRAWN, decided, planned
from tinyflux_pl.app.planned_config import weightless
from tinyflux_pl.config.build import build
from tinyflux_pl.core.errors import MemoryPlanError
from tinyflux_pl.core.types import Batch, Conditioning, TextEmbeddings
from tinyflux_pl.engine import memory_plan, outline
from tinyflux_pl.engine.accelerator import AUTO, describe
from tinyflux_pl.engine.memory_plan import GIB, MemoryPlan

ALONE = "plan"  # of the key preflight: print the plan and stop; needs neither weights nor the card
SHARE = 0.9  # of the memory is planned with: the rest is the driver's, and what the allocator cannot join
FEW = 8  # samples of a micro-batch, below which to compute activations twice costs less than to divide further


@dataclass(frozen=True)
class TrainingPlan:
    """How a run divides its batch, what that takes, and the bytes that it may take."""

    sizes: Sizes
    gradient_checkpointing: bool
    drawn_at_once: int
    memory: MemoryPlan
    limit: int

    @property
    def fits(self) -> bool:
        """Whether every stage on the accelerator does."""
        return self.memory.worst().total <= self.limit

    @property
    def line(self) -> str:
        """The division in a line."""
        many = f"{self.sizes.accumulation} accumulated" + (f" x {n} ranks" if (n := self.sizes.ranks) > 1 else "")
        twice = "with" if self.gradient_checkpointing else "without"
        batch = self.sizes.micro_batch * self.sizes.accumulation
        needs = memory_plan.size(self.memory.worst().total)
        return f"batch {batch} = {self.sizes.on_rank} samples x {many}, {twice} gradient checkpointing: {needs}"

    def require(self, cure: str) -> None:
        """Raise MemoryPlanError naming the stage that does not fit."""
        if self.fits:
            return
        stage = self.memory.worst()
        rows = sorted(stage.rows.items(), key=lambda row: -row[1])[:4]
        largest = ", ".join(f"{name} {memory_plan.size(count)}" for name, count in rows)
        what = f"the stage {stage.name!r} needs {memory_plan.size(stage.total)} ({largest})"
        what += f" of the {memory_plan.size(self.limit)} that are planned with"
        raise MemoryPlanError(what, where="hardware.memory_gb", cure=cure)


class Planner:
    """Counts one configuration's training on the meta device, once for each way to compute."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = weightless(config)
        self.hardware = config["hardware"]
        self.codec, self.text = build(self.config["codec"]), build(self.config["text"])
        experts = {name: build(node) for name, node in config["experts"].items()}
        self.parts = Parts(self.config, self.codec, self.text, build(config["path"]), experts)
        self.precision = self.parts.precision
        with torch.device("meta"):
            self.denoiser = self.parts.student()
        from tinyflux_pl.training.optimizers import build_optimizer

        self.optimizer = build_optimizer(self.denoiser, build(config["optimizer"]))
        self._growths: dict[bool, Any] = {}

    def plan(self) -> TrainingPlan:
        """The division that is asked for, or where that is `auto` the first that fits.

        Raises MemoryPlanError where none does.
        """
        plan = None
        for plan in self._candidates():
            if plan.fits:
                return plan
        assert plan is not None
        plan.require(self._cure(plan))
        return plan

    def _candidates(self) -> Iterator[TrainingPlan]:
        """From the fewest micro-batches on; activations are computed twice before micro-batches get small."""
        asked, auto = self.hardware["gradient_checkpointing"], self.hardware["accumulation"] == AUTO
        divided = [replace_accumulation(self.hardware, n) for n in self._counts()] if auto else [sizes(self.hardware)]
        large = [one for one in divided if one.on_rank >= FEW] or divided[:1]
        if asked != AUTO:
            yield from (self._plan(one, bool(asked)) for one in divided)
            return
        yield from (self._plan(one, False) for one in large)
        yield from (self._plan(one, True) for one in divided)

    def _counts(self) -> list[int]:
        """Numbers of micro-batches that divide the batch."""
        batch, ranks = self.hardware["batch_size"], sizes({**self.hardware, "accumulation": 1}).ranks
        return [n for n in range(1, batch // ranks + 1) if batch % n == 0 and batch // n % ranks == 0]

    def _plan(self, division: Sizes, checkpointing: bool) -> TrainingPlan:
        averaged, ranks = True, division.ranks
        groups = self.optimizer.param_groups
        state = memory_plan.training_state(self.denoiser, groups, averaged=averaged, ranks=ranks)
        limit, codec = self._limit, {"codec": self._codec_bytes}
        working = {
            "step": self._step(checkpointing).at(division.on_rank),
            "validation": self._forward.at(division.micro_batch),
        }
        beside = memory_plan.training(state, {"preview": 0}, host=False).worst().total + self._codec_bytes
        asked = self.hardware.get("drawn_at_once", AUTO)
        drawn = _largest(MOST_DRAWN, lambda count: beside + self._drawing(count) <= limit) if asked == AUTO else asked
        working["preview"] = self._drawing(min(drawn, self.config["callbacks"]["preview"]["count"]))
        memory = memory_plan.training(state, working, host=False)
        stages = tuple(s if s.host else replace(s, rows={**s.rows, **codec}) for s in memory.stages)
        return TrainingPlan(division, checkpointing, drawn, MemoryPlan(stages), limit)

    @property
    def _limit(self) -> int:
        """Bytes that may be planned with: the profile's memory, else that of the accelerator that is here."""
        given = self.hardware.get("memory_gb")
        total = given * GIB if given else describe(self.hardware["accelerator"]).total
        return int(total * SHARE)

    @cached_property
    def _codec_bytes(self) -> int:
        skeleton = self.codec.skeleton()
        if skeleton is None:
            return 0
        width = getattr(torch, self.codec.dtype).itemsize
        return sum(parameter.numel() for parameter in skeleton.parameters()) * width

    def _step(self, checkpointing: bool) -> Any:
        if checkpointing not in self._growths:
            if checkpointing:
                self.denoiser.enable_gradient_checkpointing()
            self._growths[checkpointing] = outline.step(self.denoiser, self._loss, self.precision)
        return self._growths[checkpointing]

    @cached_property
    def _objective(self) -> Any:
        config = self.config
        times, null = build(config["timesteps"]), self._text(1)
        return build(config["objective"], timesteps=times, null_text=null, experts=list(self.parts.experts.values()))

    def _loss(self, samples: int) -> Tensor:
        batch = self._batch(samples).to("meta")
        return torch.stack(list(self._objective.loss(self.denoiser, batch, 0).values())).sum()

    @cached_property
    def _forward(self) -> outline.Linear:
        return outline.forward(self.denoiser, self._evaluate, self.precision)

    def _evaluate(self, rows: int) -> Any:
        batch = self._batch(rows).to("meta")
        cond: Conditioning = batch.conditioning()
        return self.denoiser(batch.latents, batch.latents.new_ones(rows), cond)

    def _drawing(self, pictures: int) -> int:
        """The larger of a guided evaluation and of the decoding of all of them."""
        rows = pictures * (2 if self.config["guidance"].get("scale", 1) != 1 else 1)
        return max(self._forward.at(rows), self._decoded.at(pictures))

    @cached_property
    def _decoded(self) -> outline.Linear:
        codec, shape = build(self.config["codec"]).to("meta"), self._batch(1).latents.shape[1:]
        codec.decode(torch.empty(1, *shape, device="meta"))  # which makes its skeleton: that is no activation
        return outline.forward(nn.Module(), lambda n: codec.decode(torch.empty(n, *shape, device="meta")), "32-true")

    def _text(self, rows: int) -> TextEmbeddings:
        spec = self.text.text_spec
        mask = torch.ones(rows, spec.length, dtype=torch.bool)
        return TextEmbeddings(torch.zeros(rows, spec.length, spec.width), mask, torch.zeros(rows, spec.pooled))

    def _batch(self, rows: int) -> Batch:
        """So many samples of zeros, with captions of full length and all that the data may bring beside them."""
        spec, (height, width) = self.codec.latent_spec, self.parts.image_size
        latents = torch.zeros(rows, spec.channels, height // spec.downsample, width // spec.downsample)
        experts, present = {}, {}
        for name, expert in self.parts.experts.items():
            for key, shape in expert.spec.shapes.items():
                experts[f"{name}.{key}"] = torch.ones(rows, len(expert.spec.t_buckets), *shape)
            present[name] = torch.ones(rows, dtype=torch.bool)
        beside: dict[str, Any] = {"size_ids": torch.zeros(rows, 6)}
        holes = self.denoiser.inpaint_channels
        if holes:
            beside["inpaint"] = torch.zeros(rows, holes, *latents.shape[2:])
        elif "reference_size" in self.config["data"] and self.denoiser.reads_references:
            beside["references"] = (torch.zeros_like(latents),)
        if ids := self.text.text_spec.ids:
            cells = latents.shape[2] * latents.shape[3]
            beside["target_ids"] = torch.zeros(rows, cells, ids)
            beside["target_mask"] = torch.ones(rows, cells, dtype=torch.bool)
        numbers = torch.arange(rows)
        return Batch(latents, self._text(rows), numbers, numbers, [""] * rows, experts, present, **beside)

    def _cure(self, plan: TrainingPlan) -> str:
        choices = []
        if self.hardware["accumulation"] != AUTO and plan.sizes.on_rank > 1:
            choices.append("hardware.accumulation=auto")
        if self.hardware["gradient_checkpointing"] is False:
            choices.append("hardware.gradient_checkpointing=auto")
        return ", or ".join([*choices, "smaller pictures (data.image_size=)", "a smaller model=", "a larger card"])


def replace_accumulation(hardware: dict[str, Any], count: int) -> Sizes:
    """How the batch is divided into so many micro-batches."""
    return sizes({**hardware, "accumulation": count})


def divided(config: dict[str, Any]) -> tuple[dict[str, Any], TrainingPlan | None]:
    """The configuration with every `auto` of how a batch is divided decided, and the plan that decided it.

    Raises MemoryPlanError where nothing fits, or not what the user asks for.
    """
    config = decided(config)
    hardware = config["hardware"]
    if not planned(hardware):
        return config, None
    plan = Planner(config).plan()
    found = {"accumulation": plan.sizes.accumulation, "gradient_checkpointing": plan.gradient_checkpointing}
    found["drawn_at_once"] = plan.drawn_at_once
    return {**config, "hardware": {**hardware, **found}}, plan


def always(hardware: dict[str, Any]) -> dict[str, Any]:
    """The hardware with its memory said, so that it is planned for: on a CPU that of this machine."""
    known = decided({"hardware": hardware})["hardware"]
    if planned(known):
        return known
    return {**hardware, "accelerator": "cpu", "memory_gb": describe("cpu").total / GIB}


def _largest(most: int, fits: Callable[[int], bool]) -> int:
    """The largest number up to `most` that fits; 1 where none does."""
    return next((n for n in range(most, 1, -1) if fits(n)), 1)
