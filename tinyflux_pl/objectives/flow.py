"""Path regression with named extra terms: the objective of flow matching and of its kin."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tinyflux_pl.core import rng
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.protocols import Denoiser, Expert
from tinyflux_pl.core.transfer import to_device
from tinyflux_pl.core.types import Batch, Conditioning, Prediction, TextEmbeddings
from tinyflux_pl.diffusion import losses, prediction
from tinyflux_pl.diffusion.weighting import Weighting


@dataclass(frozen=True)
class Draw:
    """One step's randomness, made explicit: time, noise, and what each sample is told.

    `prompted` (B,) is True where a sample keeps its prompt, whatever becomes of its teachers.
    """

    t: Tensor
    noise: Tensor
    cond: Conditioning
    targets: dict[str, dict[str, Tensor]]
    prompted: Tensor


class FlowObjective:
    """Regress the denoiser's own prediction along its path, and its heads on the experts.

    The terms of `loss` are already weighted; their sum is the training loss. A dropped prompt
    also drops whatever would leak it: the teachers' features and Sol's map as a loss weight.
    """

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
    ) -> None:
        self.timesteps, self.null_text, self.experts = timesteps, null_text, tuple(experts)
        # Without padding, which would lengthen every batch; kept where the last batch was.
        self._null = None if null_text is None else null_text.trimmed()
        self.error, self.huber_delta = error, huber_delta
        losses.check_error(error)
        if not 0 <= text_dropout <= 1:
            raise ConfigError(f"text_dropout is {text_dropout}", where="objective.text_dropout", cure="from 0 to 1")
        if not huber_delta > 0:
            raise ConfigError(f"huber_delta is {huber_delta}", where="objective.huber_delta", cure="a number above 0")
        self.weighting = Weighting(weighting, min_snr_gamma)
        self.text_dropout, self.map_weighting, self.seed = text_dropout, map_weighting, seed
        self.foreground, self.background = foreground, background

    def loss(self, denoiser: Denoiser, batch: Batch, step: int) -> dict[str, Tensor]:
        """Named, weighted scalar terms for one training step."""
        draw = self.draw(denoiser, batch, step)
        answer, per_sample = self.regress(denoiser, batch, draw)
        return self.terms(answer, per_sample, batch, draw, step)

    def terms(self, answer: Prediction, per_sample: Tensor, batch: Batch, draw: Draw, step: int) -> dict[str, Tensor]:
        """The weighted terms of a step, of the denoiser's answer and its regression errors (B,); a place for more."""
        terms = {"flow": per_sample.mean()}
        for expert in self.experts:
            present = batch.expert_present[expert.name]
            distilled = expert.losses(answer.heads, draw.targets[expert.name], present)
            terms[expert.name] = expert.weight_at(step) * distilled
        return terms

    def draw(self, denoiser: Denoiser, batch: Batch, step: int) -> Draw:
        """The step's t, noise and conditioning: functions of (seed, stream, sample_id, step)."""
        ids, shape, device = batch.sample_ids.tolist(), batch.latents.shape[1:], batch.latents.device
        tokens = shape[1] * shape[2] // denoiser.patch_size**2
        t = to_device(self.timesteps(rng.uniform(self.seed, "t", ids, step), denoiser.path, tokens), device)
        noise = to_device(rng.normal(shape, self.seed, "noise", ids, step, pinned=device.type == "cuda"), device)
        told = to_device(rng.uniform(self.seed, "text_dropout", ids, step), device) >= self.text_dropout
        ports, masks, targets = {}, {}, {}
        for expert in self.experts:
            targets[expert.name] = expert.ports(batch.experts, t)
            luck = to_device(rng.uniform(self.seed, f"expert_dropout/{expert.name}", ids, step), device)
            shown = (luck >= expert.dropout_at(step)) & told & batch.expert_present[expert.name]
            ports.update(targets[expert.name])
            masks.update(dict.fromkeys(targets[expert.name], shown))
        if self._null.tokens.device != device:
            self._null = self._null.to(device)
        text = batch.text.where(told, self._null) if self.text_dropout > 0 else batch.text
        return Draw(t, noise, batch.conditioning(text, ports, masks), targets, told)

    def regress(self, denoiser: Denoiser, batch: Batch, draw: Draw) -> tuple[Prediction, Tensor]:
        """The denoiser's answer and the weighted regression error of each sample (B,)."""
        path = denoiser.path
        x_t = path.interpolate(batch.latents, draw.noise, draw.t)
        target = prediction.target(denoiser.prediction, batch.latents, draw.noise, draw.t, path)
        answer = denoiser(x_t, draw.t, draw.cond)
        error = losses.elementwise(self.error, answer.sample.float(), target, self.huber_delta)
        if self.map_weighting:
            for name, ports in draw.targets.items():
                if "prior_map" in ports:
                    # Not cond.port_mask: the weight belongs to the loss, and stays when dropout withdraws the teacher.
                    counted = draw.prompted & batch.expert_present[name]
                    error = error * _map_weight(ports["prior_map"], counted, error.shape[-2], error.shape[-1])
        if batch.masks is None:
            per_sample = losses.unpadded_mean(error, batch.target_mask)
        else:
            per_sample = losses.masked_mean(error, batch.masks, self.foreground, self.background)
        return answer, per_sample * self.weighting(path.log_snr(draw.t), denoiser.prediction)


def _map_weight(importance: Tensor, counted: Tensor, height: int, width: int) -> Tensor:
    """Weights (B, 1, H, W) of mean 1 from maps (B, S, S); 1 everywhere for a sample that does not count (B,)."""
    weight = losses.spatial_weight(importance, height, width)
    return torch.where(counted[:, None, None], weight, torch.ones_like(weight))[:, None]
