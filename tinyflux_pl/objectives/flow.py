"""Path regression with named extra terms: flow matching and other predictions along a path."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tinyflux_pl.core import rng
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.protocols import Denoiser, Expert
from tinyflux_pl.core.transfer import to_device
from tinyflux_pl.core.types import Batch, Conditioning, Prediction, TextEmbeddings
from tinyflux_pl.diffusion import losses, prediction
from tinyflux_pl.diffusion.weighting import Weighting
from tinyflux_pl.objectives.teacher_target import TeacherTarget, TeacherTargets
from tinyflux_pl.techniques.technique import Regression, StepInputs, Technique, all_applied

MAP = "prior_map"  # the port of importance maps


@dataclass(frozen=True)
class Draw:
    """The random variables of one step: times t (B,), noise, and each sample's conditioning.

    `targets` maps expert -> port -> the teacher's features. `keep_text` (B,) is True where text
    dropout keeps the prompt, independent of expert dropout. `teacher`: velocities of teachers as a
    part of the regression target; None in a run without them. `sample_ids` and `step` are the
    coordinates of further draws.
    """

    t: Tensor
    noise: Tensor
    cond: Conditioning
    targets: dict[str, dict[str, Tensor]]
    keep_text: Tensor
    sample_ids: list[int]
    step: int
    teacher: TeacherTarget | None = None


class FlowObjective:
    """Regress the denoiser's own prediction along its path, and its heads on the experts.

    The terms of `loss` are already weighted; their sum is the training loss. A dropped prompt also
    drops whatever would leak it: the teachers' features and velocities, and the attention map as a
    loss weight.
    """

    trains: ClassVar[str] = "denoiser"  # the kind of module (app.fitting.module_kinds)

    def __init__(
        self,
        timesteps: Callable[[Tensor, object, int], Tensor],
        null_text: TextEmbeddings,
        experts: Sequence[Expert] = (),
        error: str = "mse",
        huber_delta: float = 0.1,
        weighting: str = "uniform",
        min_snr_gamma: float = 5.0,
        text_dropout: float = 0.1,
        foreground: float = 2.0,
        background: float = 0.5,
        map_weighting: bool = False,
        seed: int = 0,
        velocity_targets: TeacherTargets | None = None,
        techniques: Mapping[str, Technique] | None = None,
    ) -> None:
        self.techniques = dict(techniques or {})
        self.timesteps, self.null_text, self.experts = timesteps, null_text, tuple(experts)
        self.velocity_targets = velocity_targets
        # Without padding, which would lengthen every batch; on the device of the last batch.
        self._null = None if null_text is None else null_text.trimmed()
        self.error, self.huber_delta = error, huber_delta
        losses.check_error(error)
        if not 0 <= text_dropout <= 1:
            raise ConfigError(
                f"text_dropout is {text_dropout}",
                where="objective.text_dropout",
                cure="from 0 to 1",
            )
        if not huber_delta > 0:
            raise ConfigError(
                f"huber_delta is {huber_delta}",
                where="objective.huber_delta",
                cure="a number above 0",
            )
        self.weighting = Weighting(weighting, min_snr_gamma)
        self.text_dropout, self.map_weighting, self.seed = text_dropout, map_weighting, seed
        self.foreground, self.background = foreground, background
        # keys of a run's configuration that it does not read, and why
        self.unread: dict[str, str] = {}
        if error != "huber":
            self.unread["objective.huber_delta"] = f"the error is {error}"
        if not weighting.startswith("min_snr"):
            self.unread["objective.min_snr_gamma"] = f"the weighting is {weighting}"
        if not any(MAP in expert.columns.values() for expert in self.experts):
            self.unread["objective.map_weighting"] = "no teacher here has importance maps"
        # the experts' losses at the last call of `terms`, before their weights, for the log
        self.unweighted: dict[str, Tensor] = {}
        # what the techniques add for each sample (B,) at the last call of `regress`
        self.added: dict[str, Tensor] = {}
        # the share of samples with a teacher's velocity at the last call of `draw`
        self.velocity_share: Tensor | None = None

    def loss(self, denoiser: Denoiser, batch: Batch, step: int) -> dict[str, Tensor]:
        """Named, weighted scalar terms for one training step."""
        draw = self.draw(denoiser, batch, step)
        output, per_sample = self.regress(denoiser, batch, draw)
        added = {name: loss.mean() for name, loss in self.added.items()}
        return self.terms(output, per_sample, batch, draw, step) | added

    def passes(
        self, denoiser: Denoiser, batch: Batch, step: int
    ) -> Iterator[tuple[str, Denoiser, dict[str, Tensor]]]:
        """The one optimizer's name, the network that it trains, and its terms."""
        yield "denoiser", denoiser, self.loss(denoiser, batch, step)

    @torch.no_grad()
    def by_sample(self, denoiser: Denoiser, batch: Batch, step: int) -> dict[int, dict[str, float]]:
        """Sample id -> weighted terms of that sample."""
        draw = self.draw(denoiser, batch, step)
        output, flow = self.regress(denoiser, batch, draw)
        ids = batch.sample_ids.tolist()
        samples = {sample: {"flow": float(value)} for sample, value in zip(ids, flow, strict=True)}
        for row, terms in enumerate(samples.values()):
            for expert in self.experts:
                heads = _row(output.heads, row)
                targets = _row(draw.targets[expert.name], row)
                present = batch.expert_present[expert.name][row : row + 1]
                loss = expert.losses(heads, targets, present)
                terms[expert.name] = expert.weight_at(step) * float(loss)
            terms |= {name: float(loss[row]) for name, loss in self.added.items()}
        return samples

    def terms(
        self, output: Prediction, per_sample: Tensor, batch: Batch, draw: Draw, step: int
    ) -> dict[str, Tensor]:
        """The step's weighted terms from the denoiser's output and its errors (B,).

        Subclasses override this to add terms.
        """
        terms = {"flow": per_sample.mean()}
        for expert in self.experts:
            present = batch.expert_present[expert.name]
            distillation = expert.losses(output.heads, draw.targets[expert.name], present)
            terms[expert.name] = expert.weight_at(step) * distillation
            self.unweighted[expert.name] = distillation.detach()
        return terms

    def draw(self, denoiser: Denoiser, batch: Batch, step: int) -> Draw:
        """Draw t, noise and conditioning as functions of (seed, stream, sample_id, step)."""
        ids = batch.sample_ids.tolist()
        shape, device = batch.latents.shape[1:], batch.latents.device
        tokens = shape[1] * shape[2] // denoiser.patch_size**2
        uniform = rng.uniform(self.seed, "t", ids, step)
        times = self.timesteps(uniform, denoiser.path, tokens)
        t = to_device(times, device)
        on_gpu = device.type == "cuda"
        noise = to_device(rng.normal(shape, self.seed, "noise", ids, step, pinned=on_gpu), device)
        u = rng.uniform(self.seed, "text_dropout", ids, step)
        keep_text = to_device(u, device) >= self.text_dropout
        teacher = None
        if self.velocity_targets is not None:
            keeps = u >= self.text_dropout  # on the host
            path = denoiser.path
            teacher = self.velocity_targets.choose(batch, times, noise, keeps, step, path)
            t, noise = teacher.t, teacher.noise
            self.velocity_share = teacher.used.float().mean()
        ports: dict[str, Tensor] = {}
        masks: dict[str, Tensor] = {}
        targets: dict[str, dict[str, Tensor]] = {}
        for expert in self.experts:
            features = expert.ports(batch.experts, t)
            u = to_device(
                rng.uniform(self.seed, f"expert_dropout/{expert.name}", ids, step), device
            )
            keep_teacher = u >= expert.dropout_at(step)
            use_teacher = keep_teacher & keep_text & batch.expert_present[expert.name]
            targets[expert.name] = features
            ports.update(features)
            masks.update(dict.fromkeys(features, use_teacher))
        if self._null.tokens.device != device:
            self._null = self._null.to(device)
        text = batch.text.where(keep_text, self._null) if self.text_dropout > 0 else batch.text
        cond = batch.conditioning(text, ports, masks)
        return Draw(t, noise, cond, targets, keep_text, ids, step, teacher)

    def regress(self, denoiser: Denoiser, batch: Batch, draw: Draw) -> tuple[Prediction, Tensor]:
        """The denoiser's output and the weighted regression error of each sample (B,)."""
        path = denoiser.path
        x_t = path.interpolate(batch.latents, draw.noise, draw.t)
        target = prediction.target(denoiser.prediction, batch.latents, draw.noise, draw.t, path)
        if draw.teacher is not None:
            target = draw.teacher.mixed(target, x_t, draw.t, path, denoiser.prediction)
        with all_applied(self.techniques, denoiser, _inputs_of(denoiser, x_t, draw)):
            output = denoiser(x_t, draw.t, draw.cond)
        error = losses.elementwise(self.error, output.sample.float(), target, self.huber_delta)
        if self.map_weighting:
            for name, ports in draw.targets.items():
                if MAP in ports:
                    # Not cond.port_mask: the weight is part of the loss, so expert dropout keeps
                    # it.
                    weighted = draw.keep_text & batch.expert_present[name]
                    error = error * _map_weight(ports[MAP], weighted, *error.shape[-2:])

        def mean(error: Tensor) -> Tensor:
            if batch.masks is None:
                return losses.unpadded_mean(error, batch.target_mask)
            return losses.masked_mean(error, batch.masks, self.foreground, self.background)

        regression = Regression(output.sample.float(), target, mean)
        losses_of = {name: each.loss(regression) for name, each in self.techniques.items()}
        self.added = {name: loss for name, loss in losses_of.items() if loss is not None}
        return output, mean(error) * self.weighting(path.log_snr(draw.t), denoiser.prediction)


def _inputs_of(denoiser: Denoiser, x_t: Tensor, draw: Draw) -> StepInputs:
    pictures = (x_t, *draw.cond.references)
    cells = sum(picture.shape[-2] * picture.shape[-1] for picture in pictures)
    tokens = cells // denoiser.patch_size**2
    return StepInputs(draw.sample_ids, draw.step, tokens, x_t.device)


def _row(tensors: Mapping[str, Tensor], row: int) -> dict[str, Tensor]:
    return {name: tensor[row : row + 1] for name, tensor in tensors.items()}


def _map_weight(importance: Tensor, weighted: Tensor, height: int, width: int) -> Tensor:
    """Weights (B, 1, H, W) of mean 1 from maps (B, S, S); 1 where `weighted` (B,) is False."""
    weight = losses.spatial_weight(importance, height, width)
    return torch.where(weighted[:, None, None], weight, torch.ones_like(weight))[:, None]
