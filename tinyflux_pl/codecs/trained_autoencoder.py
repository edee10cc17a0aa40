"""The base class of trainable autoencoders, which tracks the statistics of their latents."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tinyflux_pl.core.errors import ConfigError

LARGEST = 4096  # of any size, whoever describes it
MEMORY = 0.99  # of the running statistics of the latents: the share that stays at each step
SMALLEST_STD = 1e-3  # of a channel that carries nothing


@runtime_checkable
class AutoencoderSizes(Protocol):
    """The sizes of one kind of autoencoder, from which it can be built.

    `downsample`: pixels along a latent cell. `config_dict()` is plain JSON data, which
    `codecs.described_networks` reads back under `name`.
    """

    name: ClassVar[str]

    @property
    def latent_channels(self) -> int: ...
    @property
    def downsample(self) -> int: ...
    def autoencoder(self) -> TrainedAutoencoder: ...
    def config_dict(self) -> dict[str, Any]: ...


class TrainedAutoencoder(nn.Module, ABC):
    """Pictures (B, 3, H, W) in [-1, 1] <-> latents (B, L, h, w), with the latents' statistics.

    `encoder` returns mean and log variance of the latents. `latent_mean` and `latent_std` (L,)
    follow the latents of the training batches; codecs.bezier normalises with them.
    """

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, encoder: nn.Module, decoder: nn.Module, latent_channels: int) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.register_buffer("latent_mean", torch.zeros(latent_channels))
        self.register_buffer("latent_std", torch.ones(latent_channels))

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """The reconstruction from the latents' means."""
        return self.decoder(self.encoder(images)[0])

    @torch.no_grad()
    def update_statistics(self, mean: Float[Tensor, "b l h w"], log_variance: Tensor) -> None:
        """Move the statistics toward a batch's latents, ignoring values that are not finite."""
        mean, variance = mean.float(), log_variance.float().exp()
        spread = mean.var((0, 2, 3), correction=0) + variance.mean((0, 2, 3))
        seen = (mean.mean((0, 2, 3)), spread.sqrt().clamp_min(SMALLEST_STD))
        for statistic, value in zip((self.latent_mean, self.latent_std), seen, strict=True):
            moved = statistic.lerp(value, 1 - MEMORY)
            statistic.copy_(torch.where(value.isfinite(), moved, statistic))

    @abstractmethod
    def enable_gradient_checkpointing(self) -> None:
        """Keep only each stage's input for the backward pass and compute the rest again."""


def require_sizes(values: list[Any]) -> None:
    """Raise ConfigError unless all are whole numbers within bounds."""
    if any(type(value) is not int or not 0 <= value <= LARGEST for value in values):
        raise ConfigError(f"sizes {values}", where="model", cure=f"integers from 0 to {LARGEST}")
