"""The autoencoder's objective: reconstruction, KL with free bits, and a critic's hinge loss, R1.

FluxFlow's weights: L1 + 0.1 MSE + beta KL; the critic joins after a number of steps. The critic's
share is a fixed number: weights that follow the ratio of two losses change sign with them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from tinyflux_pl.codecs.autoencoder_networks import AutoencoderNetworks
from tinyflux_pl.core import rng
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.protocols import Expert
from tinyflux_pl.core.transfer import to_device
from tinyflux_pl.core.types import Batch, TextEmbeddings
from tinyflux_pl.diffusion import losses
from tinyflux_pl.diffusion.schedules import Ramp, warmup


@dataclass(frozen=True)
class Reconstruction:
    """Pictures of a batch, what came back, and the bottleneck between them."""

    images: Tensor
    restored: Tensor
    mean: Tensor
    log_variance: Tensor
    context: Tensor  # (B, L) that the critic reads: the mean of the cells' latents


class AutoencoderObjective:
    """Named, weighted terms of an autoencoder and of its critic.

    Below `free_bits` nats a dimension the KL costs nothing more. From `critic_from` on, the critic
    is trained, and its weight in the autoencoder's loss grows to `critic_weight` in
    `critic_warmup` steps. Every `r1_every` steps the critic's gradient on real pictures is
    penalised, that many times as strongly.
    """

    trains: ClassVar[str] = "autoencoder"
    velocity_targets: ClassVar[None] = None  # only a denoiser has them
    unread: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("timesteps", "sampler", "guidance"), "an autoencoder has no times"
    )

    def __init__(
        self,
        timesteps: object = None,
        null_text: TextEmbeddings | None = None,
        experts: Sequence[Expert] = (),
        l1_weight: float = 1.0,
        mse_weight: float = 0.1,
        kl_weight: float = 1e-3,
        kl_warmup: int = 500,
        free_bits: float = 0.0,
        critic_weight: float = 0.05,
        critic_from: int = 0,
        critic_warmup: int = 200,
        r1_gamma: float = 5.0,
        r1_every: int = 16,
        seed: int = 0,
    ) -> None:
        if experts:
            raise ConfigError(
                "an autoencoder has no ports for experts", where="experts", cure="experts=none"
            )
        if r1_every < 1:
            raise ConfigError(
                f"r1_every is {r1_every}", where="objective.r1_every", cure="a number above 0"
            )
        self.null_text = null_text
        self.l1_weight, self.mse_weight, self.free_bits = l1_weight, mse_weight, free_bits
        self.kl_ramp = Ramp(kl_weight, kl_warmup, "cosine")
        self.critic_weight, self.critic_from = critic_weight, critic_from
        self.critic_warmup = critic_warmup
        self.r1_gamma, self.r1_every, self.seed = r1_gamma, r1_every, seed

    def critic_active(self, step: int) -> bool:
        """True from the step on in which the critic is trained."""
        return self.critic_weight > 0 and step >= self.critic_from

    def penalised(self, step: int) -> bool:
        """True in the steps with the R1 penalty."""
        return self.r1_gamma > 0 and step % self.r1_every == 0

    def reconstruct(self, networks: AutoencoderNetworks, batch: Batch, step: int) -> Reconstruction:
        """Encode, sample the bottleneck, decode; the noise depends on (seed, sample_id, step)."""
        images = networks.images(batch.latents)
        mean, log_variance = networks.autoencoder.encoder(images)
        ids = batch.sample_ids.tolist()
        noise = rng.normal(mean.shape[1:], self.seed, "latent_noise", ids, step)
        noise = to_device(noise, mean.device)
        latents = mean + noise.to(mean.dtype) * (0.5 * log_variance).exp()
        if networks.training:
            networks.autoencoder.update_statistics(mean, log_variance)
        restored = networks.autoencoder.decoder(latents)
        return Reconstruction(images, restored, mean, log_variance, latents.mean((2, 3)))

    def passes(
        self, networks: AutoencoderNetworks, batch: Batch, step: int
    ) -> Iterator[tuple[str, nn.Module, dict[str, Tensor]]]:
        """Each optimizer's name, the network that it trains, and its terms, in the step's order.

        The caller takes the gradients of a pass before it asks for the next.
        """
        networks.critic.requires_grad_(False)
        pictures = self.reconstruct(networks, batch, step)
        yield "autoencoder", networks.autoencoder, self.autoencoder_terms(networks, pictures, step)
        networks.critic.requires_grad_(True)
        if self.critic_active(step):
            yield "critic", networks.critic, self.critic_terms(networks, pictures, step)

    @torch.no_grad()
    def by_sample(
        self, networks: AutoencoderNetworks, batch: Batch, step: int
    ) -> dict[int, dict[str, float]]:
        """Sample id -> its weighted l1, mse and kl."""
        pictures = self.reconstruct(networks, batch, step)
        error = (pictures.restored.float() - pictures.images.float()).flatten(1)
        divergence = losses.kl(pictures.mean, pictures.log_variance, self.free_bits)
        terms = {
            "l1": self.l1_weight * error.abs().mean(1),
            "mse": self.mse_weight * error.square().mean(1),
            "kl": self.kl_ramp(step) * divergence,
        }
        ids = batch.sample_ids.tolist()
        return {i: {k: float(v[row]) for k, v in terms.items()} for row, i in enumerate(ids)}

    def loss(self, networks: AutoencoderNetworks, batch: Batch, step: int) -> dict[str, Tensor]:
        """The terms of the autoencoder and of its critic, for memory plans."""
        pictures = self.reconstruct(networks, batch, step)
        critic = {f"critic_{k}": v for k, v in self.critic_terms(networks, pictures, step).items()}
        return {**self.autoencoder_terms(networks, pictures, step), **critic}

    def autoencoder_terms(
        self, networks: AutoencoderNetworks, pictures: Reconstruction, step: int
    ) -> dict[str, Tensor]:
        """l1, mse, kl and adversarial, which is 0 while the critic is not trained."""
        error = pictures.restored.float() - pictures.images.float()
        divergence = losses.kl(pictures.mean, pictures.log_variance, self.free_bits).mean()
        adversarial = error.new_zeros(())
        if self.critic_active(step):
            logits = networks.critic(pictures.restored, pictures.context.detach())
            share = warmup(step - self.critic_from + 1, self.critic_warmup)
            adversarial = self.critic_weight * share * losses.hinge_generator(logits)
        return {
            "l1": self.l1_weight * error.abs().mean(),
            "mse": self.mse_weight * error.square().mean(),
            "kl": self.kl_ramp(step) * divergence,
            "adversarial": adversarial,
        }

    def critic_terms(
        self, networks: AutoencoderNetworks, pictures: Reconstruction, step: int
    ) -> dict[str, Tensor]:
        """hinge, on each sample's mean logit, and r1; both 0 while the critic is not trained."""
        zero = torch.zeros((), device=pictures.images.device)
        if not self.critic_active(step):
            return {"hinge": zero, "r1": zero}
        penalised = self.penalised(step)
        real = pictures.images.detach().requires_grad_(penalised)
        context = pictures.context.detach()
        real_logits = losses.sample_mean(networks.critic(real, context))
        fake_logits = losses.sample_mean(networks.critic(pictures.restored.detach(), context))
        penalty = zero
        if penalised:
            scale = 0.5 * self.r1_gamma * self.r1_every
            penalty = scale * losses.r1(real_logits, real).mean()
        return {"hinge": losses.hinge_critic(real_logits, fake_logits), "r1": penalty}

    def heaviest_step(self, start: int, ahead: int) -> int:
        """The first step from `start` on such that the one `ahead` of it uses the most memory."""
        first = max(start, self.critic_from if self.critic_weight > 0 else 0)
        return first + (-(first + ahead)) % self.r1_every
