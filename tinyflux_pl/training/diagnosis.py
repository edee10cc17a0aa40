"""A failing step computed once more: whose loss it is, and where the numbers first stop being finite."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from tinyflux_pl.core import precision as formats
from tinyflux_pl.core import rng
from tinyflux_pl.core.types import Batch
from tinyflux_pl.objectives.flow import FlowObjective
from tinyflux_pl.training.replay_bundle import Replay, named_tensors
from tinyflux_pl.training.skipped_steps import Verdict


@dataclass
class Diagnosis:
    """What the step gives now: terms as means over its micro-batches, samples as the objective weighs each."""

    verdict: Verdict
    terms: dict[str, float] = field(default_factory=dict)
    samples: dict[int, dict[str, float]] = field(default_factory=dict)
    groups: dict[str, float] = field(default_factory=dict)  # gradient norm by group of modules
    inputs: list[str] = field(default_factory=list)  # what of the batch is not finite, and in which samples
    weights: list[str] = field(default_factory=list)  # what of the network is not
    output: str = ""  # the first module, in the order of computing, whose output is not finite
    gradient: str = ""  # the first, in the order of going back, at whose output the gradient is not finite

    @property
    def reproduced(self) -> bool:
        """Whether the step would be refused again."""
        return bool(self.verdict.reasons)


def diagnose(replay: Replay, denoiser: nn.Module, objective: FlowObjective, precision: str, device: str) -> Diagnosis:
    """Loss and gradients of the bundle's step, exactly as training computes them, and their parts."""
    denoiser.to(device).train()
    step, batches = replay.verdict.step, [batch.to(device) for batch in replay.batches]
    found = Diagnosis(replay.verdict)
    found.inputs = [line for batch in batches for line in _unsound(batch)]
    found.weights = [name for name, value in denoiser.named_parameters() if not value.isfinite().all()]
    total = torch.zeros((), device=device)
    terms: dict[str, Tensor] = {}
    with _watched(denoiser, found):
        for batch in batches:
            torch.manual_seed(rng.derive(objective.seed, "dropout", int(batch.sample_ids[0]), step))  # as in training
            with formats.autocast(precision, device):
                given = objective.loss(denoiser, batch, step)
                loss = torch.stack(list(given.values())).sum() / len(batches)
            loss.backward()
            total = total + loss.detach()
            terms = {name: terms.get(name, 0) + term.detach() / len(batches) for name, term in given.items()}
    found.terms = {name: float(term) for name, term in terms.items()}
    trained = {k: p.grad for k, p in denoiser.named_parameters() if p.grad is not None}
    norm = torch.nn.utils.get_total_norm(list(trained.values()))
    found.verdict = replace(replay.verdict, loss=float(total), norm=float(norm))
    for name in dict.fromkeys(_group(name) for name in trained):
        own = [gradient for k, gradient in trained.items() if _group(k) == name]
        found.groups[name] = float(torch.nn.utils.get_total_norm(own))
    for batch in batches:
        with torch.no_grad(), formats.autocast(precision, device):
            found.samples |= _by_sample(denoiser, objective, batch, step)
    return found


def _by_sample(denoiser: nn.Module, objective: FlowObjective, batch: Batch, step: int) -> dict[int, dict[str, float]]:
    draw = objective.draw(denoiser, batch, step)
    answer, flow = objective.regress(denoiser, batch, draw)
    found = {sample: {"flow": float(value)} for sample, value in zip(batch.sample_ids.tolist(), flow, strict=True)}
    for i, terms in enumerate(found.values()):
        for expert in objective.experts:
            heads, targets = (
                {k: v[i : i + 1] for k, v in whole.items()} for whole in (answer.heads, draw.targets[expert.name])
            )
            own = expert.losses(heads, targets, batch.expert_present[expert.name][i : i + 1])
            terms[expert.name] = expert.weight_at(step) * float(own)
    return found


def _unsound(batch: Batch) -> list[str]:
    """What of a batch is not finite, with the samples that have it."""
    held = {name: value for name, value in named_tensors(batch).items() if value.is_floating_point()}
    bad = {name: ~value.isfinite().reshape(len(batch), -1).all(1) for name, value in held.items()}
    ids = batch.sample_ids
    return [f"{name} of sample {i}" for name, rows in bad.items() for i in ids[rows.cpu()].tolist()]


def _group(name: str) -> str:
    """net.double_blocks.0.attn.qkv.weight -> net.double_blocks.0; net.img_in.weight -> net.img_in."""
    parts = name.split(".")
    return ".".join(parts[:3] if len(parts) > 2 and parts[2].isdigit() else parts[:2])


@contextmanager
def _watched(denoiser: nn.Module, found: Diagnosis) -> Iterator[None]:
    """Note the first output and the first gradient that are not finite."""

    def after(name: str) -> Any:
        def look(gradient: Tensor) -> None:
            if not found.gradient and not gradient.isfinite().all():
                found.gradient = name

        def hook(_: nn.Module, __: Any, output: Any) -> None:
            for tensor in _tensors(output):
                if not found.output and not tensor.isfinite().all():
                    found.output = name
                if tensor.requires_grad:
                    tensor.register_hook(look)

        return hook

    handles = [m.register_forward_hook(after(k or type(m).__name__)) for k, m in denoiser.named_modules()]
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
        for held in value:
            yield from _tensors(held)
