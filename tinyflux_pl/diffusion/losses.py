"""Losses as functions of tensors: elementwise ones keep their shape, others give one a sample."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from tinyflux_pl.core.errors import ConfigError

ELEMENTWISE = ("mse", "huber")


def mse(prediction: Float[Tensor, "*s"], target: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """Squared error, elementwise, in fp32 or better."""
    return (_at_least_fp32(prediction) - _at_least_fp32(target)).square()


def huber(
    prediction: Float[Tensor, "*s"], target: Float[Tensor, "*s"], delta: float = 0.1
) -> Float[Tensor, "*s"]:
    """min(|e|, delta)^2 / 2 + delta (|e| - delta)_+, elementwise."""
    error = (_at_least_fp32(prediction) - _at_least_fp32(target)).abs()
    return 0.5 * error.clamp_max(delta).square() + delta * (error - delta).clamp_min(0)


def check_error(kind: str) -> None:
    """Raise ConfigError unless there is an elementwise loss of that name."""
    if kind not in ELEMENTWISE:
        raise ConfigError(
            f"unknown loss {kind!r}",
            where="objective.error",
            cure=f"choose {', '.join(ELEMENTWISE)}",
        )


def elementwise(
    kind: str, prediction: Float[Tensor, "*s"], target: Float[Tensor, "*s"], delta: float = 0.1
) -> Float[Tensor, "*s"]:
    """`mse` or `huber` by name."""
    check_error(kind)
    return mse(prediction, target) if kind == "mse" else huber(prediction, target, delta)


def cosine(prediction: Float[Tensor, "b *s"], target: Float[Tensor, "b *s"]) -> Float[Tensor, " b"]:
    """1 - cosine similarity of each sample's features."""
    return 1 - F.cosine_similarity(
        _at_least_fp32(prediction).flatten(1), _at_least_fp32(target).flatten(1), dim=1
    )


def sample_mean(loss: Float[Tensor, "b ..."]) -> Float[Tensor, " b"]:
    """Mean over everything but the batch."""
    return loss.flatten(1).mean(1)


def unpadded_mean(
    loss: Float[Tensor, "b c h w"], real: Bool[Tensor, "b n"] | None
) -> Float[Tensor, " b"]:
    """Per-sample mean over non-padding positions (row-major). `real=None` means no padding."""
    if real is None:
        return sample_mean(loss)
    cells = loss.mean(1).flatten(1) * real
    return cells.sum(1) / real.sum(1).clamp(min=1)


def masked_mean(
    loss: Float[Tensor, "b c h w"], mask: Float[Tensor, "b mh mw"], fg: float = 2.0, bg: float = 0.5
) -> Float[Tensor, " b"]:
    """Mean of loss * (m fg + (1 - m) bg) a sample.

    The weights are not normalised, as in the original.

    A mask at another resolution is averaged over the loss's cells.
    """
    return sample_mean(loss * mask_weight(mask, fg, bg, loss.shape[-2], loss.shape[-1])[:, None])


def mask_weight(
    mask: Float[Tensor, "b mh mw"], fg: float, bg: float, h: int, w: int
) -> Float[Tensor, "b h w"]:
    """m fg + (1 - m) bg on an h x w grid."""
    mask = _at_least_fp32(mask)
    if mask.shape[-2:] != (h, w):
        mask = F.interpolate(mask[:, None], size=(h, w), mode="area")[:, 0]
    return mask * fg + (1 - mask) * bg


def spatial_weight(importance: Float[Tensor, "b s1 s2"], h: int, w: int) -> Float[Tensor, "b h w"]:
    """A coarse importance map upsampled bilinearly to h x w, with mean 1 for each sample."""
    fine = F.interpolate(
        _at_least_fp32(importance)[:, None], size=(h, w), mode="bilinear", align_corners=False
    )[:, 0]
    # the original's guard against an all-zero map
    return fine / (fine.mean((1, 2), keepdim=True) + 1e-6)


def kl(
    mean: Float[Tensor, "b *s"], log_variance: Float[Tensor, "b *s"], free_bits: float = 0.0
) -> Float[Tensor, " b"]:
    """KL of N(mean, exp(log_variance)) from N(0, 1) in nats a dimension.

    Below `free_bits` it costs a constant.
    """
    mean, log_variance = _at_least_fp32(mean), _at_least_fp32(log_variance)
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)
    return sample_mean(divergence.clamp_min(free_bits))


def hinge_critic(real: Float[Tensor, "*s"], fake: Float[Tensor, "*s"]) -> Float[Tensor, ""]:
    """max(0, 1 - real) + max(0, 1 + fake), averaged: the critic's side of the hinge loss."""
    return F.relu(1 - _at_least_fp32(real)).mean() + F.relu(1 + _at_least_fp32(fake)).mean()


def hinge_generator(fake: Float[Tensor, "*s"]) -> Float[Tensor, ""]:
    """-mean(fake): the generator's side. Its value may be negative; never divide a weight by it."""
    return -_at_least_fp32(fake).mean()


def r1(real_logits: Float[Tensor, "b *s"], images: Float[Tensor, "b c h w"]) -> Float[Tensor, " b"]:
    """|d logits / d images|^2 a sample (Mescheder et al. 2018); multiply by gamma / 2.

    Keeps its graph.
    """
    (gradient,) = torch.autograd.grad(real_logits.sum(), images, create_graph=True)
    return gradient.float().square().flatten(1).sum(1)


def _at_least_fp32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
