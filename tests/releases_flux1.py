"""Tiny random checkpoints in the layout of FLUX.1's releases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests import releases

TEXT_LENGTH = 16
STRUCTURE: dict[str, Any] = dict(
    in_channels=64,
    num_layers=2,
    num_single_layers=2,
    attention_head_dim=16,
    num_attention_heads=2,
    joint_attention_dim=releases.T5_WIDTH,
    pooled_projection_dim=releases.CLIP_WIDTH,
    guidance_embeds=True,
    axes_dims_rope=(4, 6, 6),
)
VARIANTS: dict[str, dict[str, Any]] = {
    "dev": {},
    "schnell": {"guidance_embeds": False},
    "kontext": {},
    "fill": {"in_channels": 384, "out_channels": 64},
}
PIPELINES = {"kontext": "FluxKontextPipeline", "fill": "FluxFillPipeline"}


def transformer(variant: str = "dev", seed: int = 6) -> Any:
    """The network of a variant, in evaluation mode."""
    from diffusers import FluxTransformer2DModel

    torch.manual_seed(seed)
    return FluxTransformer2DModel(**{**STRUCTURE, **VARIANTS[variant]}).eval()


def vae(folder: Path) -> None:
    """vae/, with a posterior so narrow that a sample of it is its mode: Fill's pipeline samples."""
    model = releases.flux1_vae(folder)
    with torch.no_grad():
        model.encoder.conv_out.weight[16:] = 0
        model.encoder.conv_out.bias[16:] = -30
    model.save_pretrained(folder / "vae")


def flux1(folder: Path, variant: str = "dev") -> Path:
    """Write a complete pipeline folder with diffusers."""
    import diffusers
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    vae(folder)
    clip, words = releases.tokenizer(["<s>"], "<e>", "<e>")
    clip.model_max_length = 77  # FluxPipeline takes CLIP's length from it
    t5, pieces = releases.tokenizer(None, "</s>", "<pad>")
    shift = dict(shift=1.0) if variant == "schnell" else dict(shift=3.0, use_dynamic_shifting=True)
    torch.manual_seed(7)
    getattr(diffusers, PIPELINES.get(variant, "FluxPipeline"))(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(**shift),
        vae=diffusers.AutoencoderKL.from_pretrained(folder / "vae", low_cpu_mem_usage=False),
        text_encoder=CLIPTextModel(CLIPTextConfig(**releases.clip_text(words))),
        tokenizer=clip,
        text_encoder_2=T5EncoderModel(T5Config(**releases.t5_text(pieces))),
        tokenizer_2=t5,
        transformer=transformer(variant),
    ).save_pretrained(folder)
    return folder
