"""Prompts to images: text, the sampling loop and the codec, with any denoiser."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.finite import require_finite
from tinyflux_pl.core.protocols import Codec, Denoiser, TextEncoder
from tinyflux_pl.core.types import Batch, Conditioning, TextEmbeddings
from tinyflux_pl.diffusion.guidance import Guidance
from tinyflux_pl.sampling.initial import Initial
from tinyflux_pl.sampling.loop import SamplerSettings, sample
from tinyflux_pl.sampling.step_cache import StepCache

# images whose prompts are encoded together: some encoders are read from disk for each call
ENCODED = 64


def settings_of(config: dict[str, Any]) -> SamplerSettings:
    """Settings from plain data, as a checkpoint keeps them: guidance is a mapping of its own."""
    return SamplerSettings(**{**config, "guidance": Guidance(**config["guidance"])})


def require_guided(negative_prompt: str | None, guidance: Guidance) -> None:
    """Raise ConfigError for a negative prompt where there is no guidance that would read it."""
    if negative_prompt is not None and guidance.scale == 1:
        cure = "guidance.scale=3, say; a distilled network's own guidance reads no negative prompt"
        raise ConfigError(
            "a negative prompt does nothing at guidance.scale=1", where="negative_prompt", cure=cure
        )


def text_only(text: TextEmbeddings, rows: slice) -> Conditioning:
    """Conditioning by text alone."""
    return Conditioning(text)


def ignore_stage(name: str) -> None:
    """Do nothing: every part stays where it is."""


def no_initial() -> Initial | None:
    """None: sampling begins from noise."""
    return None


def unchanged(picture: Tensor) -> Tensor:
    """The decoded picture, unchanged."""
    return picture


@dataclass(frozen=True)
class SamplePictures:
    """Text, and for image i the references or inpainting channels of sample i.

    Samples repeat after the batch.
    """

    batch: Batch

    def __call__(self, text: TextEmbeddings, rows: slice) -> Conditioning:
        """The conditioning of these rows of a call."""
        index = torch.arange(rows.start, rows.start + len(text)) % len(self.batch)
        parts = {"inpaint": self.batch.inpaint, "hint": self.batch.hint}
        parts = {name: None if part is None else part[index] for name, part in parts.items()}
        references = tuple(reference[index] for reference in self.batch.references)
        return Conditioning(text, references=references, **parts)


@dataclass
class ImageSampler:
    """Codec, text encoder and settings; the denoiser is given with each call.

    `image_size` is (height, width) in pixels. Image i of a call depends on (seed, i) and
    its prompt, never on the batch it was drawn in. `condition_fn` adds the other conditions to the
    text embeddings of a slice of the call's rows.
    """

    codec: Codec
    text: TextEncoder
    settings: SamplerSettings
    image_size: tuple[int, int]
    max_batch: int = 64
    condition_fn: Callable[[TextEmbeddings, slice], Conditioning] = text_only
    initial: Callable[[], Initial | None] = no_initial  # a picture to begin from
    finish: Callable[[Tensor], Tensor] = unchanged  # the last change of decoded pictures
    cache: StepCache | None = None  # passes blocks by, and counts
    stage: Callable[[str], None] = ignore_stage  # called before text, encode, denoise and decode
    device: torch.device | None = None  # None: where the denoiser's weights are
    # raise NumericsError after the stage (text, latents, picture) that gave NaN or infinity
    finite: bool = False

    def latent_shape(self) -> tuple[int, int, int]:
        """(C, h, w) of one image's latents."""
        spec = self.codec.latent_spec
        height, width = self.image_size
        return spec.channels, height // spec.downsample, width // spec.downsample

    def images(self, denoiser: Denoiser, prompts: Sequence[str], **options: Any) -> Tensor:
        """Images (N, 3, H, W) in [-1, 1] on the CPU, one per prompt; options as in `batches`."""
        return torch.cat(list(self.batches(denoiser, prompts, **options)))

    @torch.inference_mode()
    def batches(
        self,
        denoiser: Denoiser,
        prompts: Sequence[str],
        *,
        negative_prompt: str | None = None,
        indices: Sequence[int] | None = None,
        seed: int = 0,
        device: torch.device | str | None = None,
        only: int | None = None,
    ) -> Iterator[Tensor]:
        """Images (n, 3, H, W) in [-1, 1] on the CPU, one a prompt, in turns of at most `max_batch`.

        A prompt is encoded once for `ENCODED` images that follow one another, however few are drawn
        at once. `only` draws no turn but that of this image.
        """
        guided = self.settings.guidance.scale != 1
        require_guided(negative_prompt, self.settings.guidance)
        if guided and negative_prompt is None:
            negative_prompt = self.settings.guidance.negative
        device = device or self.device or next(denoiser.parameters()).device
        self.stage("text")
        indices = list(indices if indices is not None else range(len(prompts)))
        # without guidance nobody asks for the unconditional, and an encoder may be gigabytes to
        # read
        null = self.text.null().trimmed().to(device) if guided and negative_prompt is None else None
        negatives = [] if negative_prompt is None else [negative_prompt]
        for first in range(0, len(prompts), ENCODED):
            block = prompts[first : first + ENCODED]
            distinct = list(dict.fromkeys([*negatives, *block]))
            index_of = {prompt: i for i, prompt in enumerate(distinct)}
            self.stage("text")
            text = self.text.encode(distinct)
            self._judge(text.tokens, "the text embeddings are", self.text.name)
            self._judge(text.pooled, "the pooled text embeddings are", self.text.name)
            if negatives:
                null = text.select(slice(0, 1)).trimmed().to(device)
            for start in range(first, first + len(block), self.max_batch):
                rows = slice(start, min(start + self.max_batch, first + len(block)))
                if only is not None and not rows.start <= only < rows.stop:
                    continue
                selected = torch.tensor([index_of[prompt] for prompt in prompts[rows]])
                embeddings = text.select(selected).trimmed().to(device)
                self.stage("encode")
                cond = self.condition_fn(embeddings, rows)
                initial = self.initial()
                self.stage("denoise")
                latents = sample(
                    denoiser,
                    self.text.with_target_ids(cond, prompts[rows]),
                    null,
                    shape=self.latent_shape(),
                    sample_ids=indices[rows],
                    seed=seed,
                    settings=self.settings,
                    max_batch=self.max_batch,
                    initial=initial,
                    cache=self.cache,
                )
                self._judge(
                    latents,
                    "the latents are",
                    f"{denoiser.name}, after {self.settings.steps} steps",
                )
                self.stage("decode")
                low, high = self.codec.bounds
                picture = self.codec.decode(latents).float()
                self._judge(
                    picture, "the picture is", f"{self.codec.name}, which decodes the latents"
                )
                yield self.finish(picture.clamp(low, high).cpu())

    def _judge(self, values: Tensor, stage: str, where: str) -> None:
        if self.finite:
            require_finite(values, stage, where)
