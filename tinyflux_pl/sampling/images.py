"""Prompts to images: text, the sampling loop and the codec, with any denoiser."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.protocols import Codec, Denoiser, TextEncoder
from tinyflux_pl.core.types import Batch, Conditioning, TextEmbeddings
from tinyflux_pl.diffusion.guidance import Guidance
from tinyflux_pl.sampling.loop import SamplerSettings, sample


def settings_of(config: dict[str, Any]) -> SamplerSettings:
    """Settings from plain data, as a checkpoint keeps them: guidance is a mapping of its own."""
    return SamplerSettings(**{**config, "guidance": Guidance(**config["guidance"])})


def words_only(text: TextEmbeddings, rows: slice) -> Conditioning:
    """Nothing beside the words."""
    return Conditioning(text)


@dataclass(frozen=True)
class ShownPictures:
    """Beside the words of image i, the references or the hole of a batch's sample i, counted round."""

    batch: Batch

    def __call__(self, text: TextEmbeddings, rows: slice) -> Conditioning:
        """The conditioning of these rows of a call."""
        index = torch.arange(rows.start, rows.start + len(text)) % len(self.batch)
        inpaint = self.batch.inpaint
        references = tuple(reference[index] for reference in self.batch.references)
        return Conditioning(text, references=references, inpaint=None if inpaint is None else inpaint[index])


@dataclass
class ImageSampler:
    """Codec, text encoder and settings; the denoiser is given with each call.

    `image_size` is (height, width) in pixels. Image i of a call depends on (seed, i) and
    its prompt, never on the batch it was drawn in. `told` adds to the words what else the denoiser is told.
    """

    codec: Codec
    text: TextEncoder
    settings: SamplerSettings
    image_size: tuple[int, int]
    max_batch: int = 64
    told: Callable[[TextEmbeddings, slice], Conditioning] = words_only  # of these rows of a call

    def latent_shape(self) -> tuple[int, int, int]:
        """(C, h, w) of one image's latents."""
        spec = self.codec.latent_spec
        height, width = self.image_size
        return spec.channels, height // spec.downsample, width // spec.downsample

    def encode(self, prompts: Sequence[str]) -> TextEmbeddings:
        """Prompts in batches of at most `max_batch`."""
        size = self.max_batch
        return TextEmbeddings.cat([self.text.encode(prompts[i : i + size]) for i in range(0, len(prompts), size)])

    def _placed(self, cond: Conditioning, prompts: Sequence[str]) -> Conditioning:
        """With the places of the answer's tokens, where the encoder knows them (sequences)."""
        return self.text.placed(cond, prompts) if hasattr(self.text, "placed") else cond

    @torch.inference_mode()
    def images(
        self,
        denoiser: Denoiser,
        prompts: Sequence[str],
        *,
        negative_prompt: str | None = None,
        indices: Sequence[int] | None = None,
        seed: int = 0,
        device: torch.device | str | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Tensor:
        """Images (N, 3, H, W) in [-1, 1] on the CPU, one a prompt."""
        guided = self.settings.guidance.scale != 1
        if negative_prompt is not None and not guided:
            cure = "guidance.scale=3, say; a distilled network's own guidance reads no negative prompt"
            raise ConfigError("a negative prompt does nothing at guidance.scale=1", where="negative_prompt", cure=cure)
        device = device or next(denoiser.parameters()).device
        indices = list(indices if indices is not None else range(len(prompts)))
        null = None
        if guided:  # otherwise nobody asks, and an encoder may be gigabytes to read
            null = self.text.null() if negative_prompt is None else self.text.encode([negative_prompt])
            null = null.to(device)
        text, drawn = self.encode(prompts), []
        for start in range(0, len(prompts), self.max_batch):
            rows = slice(start, start + self.max_batch)
            latents = sample(
                denoiser,
                self._placed(self.told(text.select(rows).trimmed().to(device), rows), prompts[rows]),
                null,
                shape=self.latent_shape(),
                sample_ids=indices[rows],
                seed=seed,
                settings=self.settings,
                max_batch=self.max_batch,
            )
            low, high = getattr(self.codec, "bounds", (-1.0, 1.0))
            drawn.append(self.codec.decode(latents).float().clamp(low, high).cpu())
            if progress is not None:
                progress(min(start + self.max_batch, len(prompts)), len(prompts))
        return torch.cat(drawn)
