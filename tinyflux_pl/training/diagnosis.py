"""Recompute a rejected step: loss by sample, and the first non-finite value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from tinyflux_pl.core import precision as formats
from tinyflux_pl.core import rng
from tinyflux_pl.core.types import Batch
from tinyflux_pl.training.replay_bundle import Replay, named_tensors
from tinyflux_pl.training.skipped_steps import Verdict

T = TypeVar("T")


class DiagnosedObjective(Protocol):
    """An objective whose rejected steps can be recomputed.

    `passes` yields for each optimizer its name, the network that it trains, and its terms, whose
    gradients are taken before the next is asked for. `by_sample` maps each sample to its terms.
    """

    seed: int

    def passes(
        self, network: Any, batch: Batch, step: int
    ) -> Iterator[tuple[str, Any, dict[str, Tensor]]]: ...
    def by_sample(self, network: Any, batch: Batch, step: int) -> dict[int, dict[str, float]]: ...


@dataclass
class Diagnosis:
    """The recomputed step; terms are means over micro-batches with the objective's weights."""

    verdict: Verdict
    terms: dict[str, float] = field(default_factory=dict)
    samples: dict[int, dict[str, float]] = field(default_factory=dict)
    groups: dict[str, float] = field(default_factory=dict)  # gradient norm by group of modules
    # Names of what is not finite: batch tensors by sample, parameters, and the first module in
    # forward order by its output, in backward order by its output's gradient.
    inputs: list[str] = field(default_factory=list)
    weights: list[str] = field(default_factory=list)
    output: str = ""
    gradient: str = ""

    @property
    def reproduced(self) -> bool:
        """True if the step would be rejected again."""
        return bool(self.verdict.reasons)


def diagnose(
    replay: Replay, denoiser: nn.Module, objective: DiagnosedObjective, precision: str, device: str
) -> Diagnosis:
    """Recompute loss and gradients of the bundle's step exactly as training does, in parts."""
    denoiser.to(device).train()
    step = replay.verdict.step
    batches = [batch.to(device) for batch in replay.batches]
    diagnosis = Diagnosis(replay.verdict)
    diagnosis.inputs = [line for batch in batches for line in _non_finite_inputs(batch)]
    parameters = denoiser.named_parameters()
    diagnosis.weights = [name for name, value in parameters if not value.isfinite().all()]
    totals: dict[str, Tensor] = {}  # by optimizer
    trained: dict[str, nn.Module] = {}
    means: dict[str, Tensor] = {}
    with _recording_non_finite(denoiser, diagnosis):
        for batch in batches:
            # As in FlowModule.training_step.
            first_id = int(batch.sample_ids[0])
            torch.manual_seed(rng.derive(objective.seed, "dropout", first_id, step))
            passes = objective.passes(denoiser, batch, step)
            for name, part, terms in _under_autocast(passes, precision, device):
                loss = torch.stack(list(terms.values())).sum() / len(batches)
                loss.backward()
                trained[name], totals[name] = part, totals.get(name, 0) + loss.detach()
                for term, value in terms.items():
                    means[term] = means.get(term, 0) + value.detach() / len(batches)
    diagnosis.terms = {name: float(term) for name, term in means.items()}
    gradients = {k: p.grad for k, p in denoiser.named_parameters() if p.grad is not None}
    judged = replay.verdict.optimizer or next(iter(trained))
    of_part = [p.grad for p in trained[judged].parameters() if p.grad is not None]
    norm, loss = torch.nn.utils.get_total_norm(of_part), float(totals[judged])
    diagnosis.verdict = replace(replay.verdict, loss=loss, norm=float(norm))
    for group in dict.fromkeys(_group(name) for name in gradients):
        of_group = [gradient for name, gradient in gradients.items() if _group(name) == group]
        diagnosis.groups[group] = float(torch.nn.utils.get_total_norm(of_group))
    for batch in batches:
        with torch.no_grad(), formats.autocast(precision, device):
            diagnosis.samples |= objective.by_sample(denoiser, batch, step)
    return diagnosis


def _under_autocast(passes: Iterator[T], precision: str, device: str) -> Iterator[T]:
    """The passes, computed under autocast; the caller's code between them is not."""
    while True:
        with formats.autocast(precision, device):
            item = next(passes, None)
        if item is None:
            return
        yield item


def _non_finite_inputs(batch: Batch) -> list[str]:
    """The non-finite tensors of a batch, by sample."""
    lines = []
    for name, value in named_tensors(batch).items():
        if value.is_floating_point():
            rows = ~value.isfinite().reshape(len(batch), -1).all(1)
            lines += [f"{name} of sample {i}" for i in batch.sample_ids[rows.cpu()].tolist()]
    return lines


def _group(name: str) -> str:
    """Group of a parameter: net.double_blocks.0.attn.qkv.weight -> net.double_blocks.0.

    net.img_in.weight -> net.img_in.
    """
    parts = name.split(".")
    return ".".join(parts[:3] if len(parts) > 2 and parts[2].isdigit() else parts[:2])


@contextmanager
def _recording_non_finite(denoiser: nn.Module, diagnosis: Diagnosis) -> Iterator[None]:
    """Inside, record the first non-finite output and the first non-finite gradient."""

    def hook_of(name: str) -> Any:
        def check_gradient(gradient: Tensor) -> None:
            if not diagnosis.gradient and not gradient.isfinite().all():
                diagnosis.gradient = name

        def hook(_: nn.Module, __: Any, output: Any) -> None:
            for tensor in _tensors(output):
                if not diagnosis.output and not tensor.isfinite().all():
                    diagnosis.output = name
                if tensor.requires_grad:
                    tensor.register_hook(check_gradient)

        return hook

    handles = [
        m.register_forward_hook(hook_of(k or type(m).__name__)) for k, m in denoiser.named_modules()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif is_dataclass(value):
        yield from _tensors([getattr(value, f.name) for f in fields(value)])
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
