"""Reconstructions instead of samples, for previews of an autoencoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass
class ReconstructionSampler:
    """Latents (N, C, h, w) of held-out pictures, folded pixels as a batch has them.

    Picture i of a call is the reconstruction of latents i modulo N.
    """

    latents: Tensor
    max_batch: int

    @torch.inference_mode()
    def images(
        self,
        networks: nn.Module | Callable[[Tensor], Tensor],
        captions: Sequence[str],
        seed: int = 0,
    ) -> Tensor:
        """Pictures (len(captions), 3, H, W) on the CPU; nothing is random, whatever the seed."""
        index = torch.arange(len(captions)) % len(self.latents)
        device = next(networks.parameters()).device
        parts = (
            networks(self.latents[rows].to(device).float()).float().clamp(-1, 1).cpu()
            for rows in index.split(self.max_batch)
        )
        return torch.cat(list(parts))
