"""The two networks of the engine's benchmark, each beside diffusers' own pipeline."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tinyflux_pl.core.random_weights import fill_zeros
from tinyflux_pl.core.rng import normal
from tinyflux_pl.core.specs import LatentSpec, TextSpec
from tinyflux_pl.core.types import Conditioning, TextEmbeddings
from tinyflux_pl.diffusion.guidance import Guidance
from tinyflux_pl.sampling.loop import SamplerSettings, sample
from tinyflux_pl.sampling.step_cache import StepCache

VAE = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 16,
    "block_out_channels": (32, 64, 64, 64),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "norm_num_groups": 16,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
}
FLUX1 = {
    "in_channels": 64,
    "num_layers": 3,
    "num_single_layers": 6,
    "attention_head_dim": 64,
    "num_attention_heads": 4,
    "joint_attention_dim": 256,
    "pooled_projection_dim": 128,
    "guidance_embeds": False,
    "axes_dims_rope": (16, 24, 24),
}


@dataclass(frozen=True)
class Subject:
    """A denoiser and a codec of ours, diffusers' pipeline, and one text for both.

    `cells` are the latents' (C, h, w); `same` says that diffusers' pipeline has the same weights,
    and decodes too.
    """

    name: str
    denoiser: Any
    codec: Any
    pipe: Any
    text: TextEmbeddings
    null: TextEmbeddings
    cells: tuple[int, int, int]
    images: int
    same: bool

    def settings(self, steps: int, **guidance: Any) -> SamplerSettings:
        """Even Euler steps; without guidance none."""
        chosen = Guidance(**{"scale": 1.0, **guidance})
        return SamplerSettings(steps=steps, solver="euler", guidance=chosen)

    @torch.inference_mode()
    def ours(self, settings: SamplerSettings, cache: StepCache | None = None) -> Tensor:
        """The pictures (B, 3, H, W) of our loop and codec."""
        null = None if settings.guidance.scale == 1 else self.null
        ids = range(self.images)
        options: dict[str, Any] = {"settings": settings, "cache": cache, "seed": 0}
        latents = sample(
            self.denoiser,
            Conditioning(self.text),
            null,
            shape=self.cells,
            sample_ids=ids,
            **options,
        )
        return self.codec.decode(latents)

    def theirs(self, steps: int, scale: float = 1.0) -> Any:
        """The pictures of diffusers' pipeline from our noise, or its latents without a codec."""
        _, height, width = self.cells
        noise = normal(self.cells, 0, "sampling", range(self.images))
        guided = {
            "negative_prompt_embeds": self.null.tokens.expand(self.images, -1, -1),
            "negative_pooled_prompt_embeds": self.null.pooled.expand(self.images, -1),
            "true_cfg_scale": scale,
        }
        return self.pipe(
            prompt_embeds=self.text.tokens,
            pooled_prompt_embeds=self.text.pooled,
            num_inference_steps=steps,
            height=8 * height,
            width=8 * width,
            latents=self.pipe._pack_latents(noise, self.images, *self.cells),
            output_type="pt" if self.same else "latent",
            **(guided if scale != 1 else {}),
        ).images

    def own_denoiser(self) -> Subject:
        """With a copy of our denoiser, to be changed."""
        return replace(self, denoiser=copy.deepcopy(self.denoiser))

    def own_pipe(self) -> Subject:
        """With a copy of diffusers' network, to be changed."""
        return replace(self, pipe=_pipe(copy.deepcopy(self.pipe.transformer), self.pipe.vae))


def _pipe(transformer: Any, vae: Any) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline
    from diffusers.utils import logging

    logging.disable_progress_bar()
    absent = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
    scheduler = FlowMatchEulerDiscreteScheduler()
    parts = {"transformer": transformer, "vae": vae, "scheduler": scheduler}
    pipe = FluxPipeline(**parts, **dict.fromkeys(absent))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _text(rows: int, words: int, spec: TextSpec) -> TextEmbeddings:
    shape = (rows, words)
    mask = torch.ones(shape, dtype=torch.bool)
    return TextEmbeddings(torch.randn(*shape, spec.width), mask, torch.randn(rows, spec.pooled))


def tinyflux(checkpoint: str | None = None) -> Subject:
    """`model=tiny` at 32 x 32 pixels, four at once; random, or the network of a checkpoint.

    Diffusers' network has its width, depth, heads and tokens, and no experts.
    """
    from benchmarks.main_job_parts import peer, tiny
    from tinyflux_pl.codecs.pixel_folding import PixelFolding

    torch.manual_seed(0)
    denoiser, transformer = tiny().eval(), peer().eval()
    text, null = _text(4, 12, denoiser.text_spec), _text(1, 12, denoiser.text_spec)
    if checkpoint is None:
        with torch.no_grad():
            fill_zeros(denoiser, 0, "benchmark")
    else:
        from tinyflux_pl.inference.pipeline import Pipeline

        pipeline = Pipeline.from_checkpoint(checkpoint)
        denoiser, encoder = pipeline.denoiser, pipeline.sampler.text
        prompts = ["a large red circle, top left", "a small blue square", "a green triangle"]
        text, null = encoder.encode([*prompts, "a yellow circle"]).trimmed(), encoder.null()
        text, null = text.padded(12), null.trimmed().padded(12)
    cells = (12, 16, 16)
    parts = (denoiser, PixelFolding(), _pipe(transformer, None), text, null)
    return Subject("tinyflux", *parts, cells, 4, same=False)


def flux1(folder: Path) -> Subject:
    """FLUX.1's structure with 13 M random weights at 128 x 128 pixels, saved and read by both."""
    from diffusers import AutoencoderKL, FluxTransformer2DModel

    from tinyflux_pl.codecs.autoencoder_kl import AutoencoderKLCodec
    from tinyflux_pl.denoisers.flux1 import build
    from tinyflux_pl.diffusion.paths import LinearPath

    torch.manual_seed(0)
    FluxTransformer2DModel(**FLUX1).save_pretrained(folder / "transformer")
    AutoencoderKL(**VAE).save_pretrained(folder / "vae")
    pipe = _pipe(
        FluxTransformer2DModel.from_pretrained(
            folder / "transformer", local_files_only=True, low_cpu_mem_usage=False
        ),
        AutoencoderKL.from_pretrained(
            folder / "vae", local_files_only=True, low_cpu_mem_usage=False
        ),
    )
    spec, text_spec = LatentSpec(16, 8), TextSpec(256, 32, 128)
    options: dict[str, Any] = {"weights": str(folder), "dtype": "float32", "structure": {}}
    denoiser = build(spec, text_spec, LinearPath(noise_at=1), **options).eval()
    codec = AutoencoderKLCodec(str(folder))
    text, null = _text(1, 32, text_spec), _text(1, 32, text_spec)
    return Subject("flux1", denoiser, codec, pipe, text, null, (16, 16, 16), 1, same=True)


def subjects(names: Sequence[str], folder: Path, checkpoint: str | None) -> list[Subject]:
    """Those of these names."""
    made = {"tinyflux": lambda: tinyflux(checkpoint), "flux1": lambda: flux1(folder)}
    return [make() for name, make in made.items() if name in names]
