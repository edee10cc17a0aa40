"""Tiny random checkpoints in the layout of Stability's releases: SDXL base, SD3.5."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests import releases

SDXL: dict[str, Any] = dict(
    sample_size=8,
    in_channels=4,
    out_channels=4,
    block_out_channels=(8, 16, 16),
    layers_per_block=2,
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    transformer_layers_per_block=(1, 1, 2),
    attention_head_dim=(1, 2, 2),
    norm_num_groups=4,
    cross_attention_dim=24,
    use_linear_projection=True,
    addition_embed_type="text_time",
    addition_time_embed_dim=8,
    projection_class_embeddings_input_dim=6 * 8 + 10,
)
SD35: dict[str, Any] = dict(
    sample_size=8,
    patch_size=2,
    in_channels=16,
    num_layers=3,
    attention_head_dim=16,
    num_attention_heads=2,
    joint_attention_dim=32,
    caption_projection_dim=32,
    pooled_projection_dim=20,
    out_channels=16,
    pos_embed_max_size=12,
    qk_norm="rms_norm",
)


def clip_text(projected: bool, seed: int) -> tuple[Any, Any]:
    """A CLIP text tower, with a projection to 10 or none, and its tokenizer."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(seed)
    fast, vocabulary = releases.tokenizer(["<s>"], "<e>", "<e>")
    fast.model_max_length = 77
    config = CLIPTextConfig(**releases.clip_text(vocabulary), projection_dim=10)
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config).eval(), fast


def sdxl(folder: Path) -> Any:
    """SDXL base as diffusers saves it; returns its pipeline."""
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel

    vae = releases.vae(folder, latent_channels=4, scaling_factor=0.13025, force_upcast=True)
    (first, words), (second, words_2) = clip_text(False, 7), clip_text(True, 8)
    torch.manual_seed(9)
    table = dict(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    pipeline = StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=first,
        tokenizer=words,
        text_encoder_2=second,
        tokenizer_2=words_2,
        unet=UNet2DConditionModel(**SDXL).eval(),
        scheduler=EulerDiscreteScheduler(**table, timestep_spacing="leading", steps_offset=1),
        add_watermarker=False,
    )
    return _saved(pipeline, folder)


def sd35(folder: Path, dual: tuple[int, ...] = ()) -> Any:
    """SD3.5 as diffusers saves it, large or (with dual attention) medium; returns its pipeline."""
    from diffusers import (
        FlowMatchEulerDiscreteScheduler,
        SD3Transformer2DModel,
        StableDiffusion3Pipeline,
    )
    from transformers import T5EncoderModel

    latents = dict(
        use_quant_conv=False, use_post_quant_conv=False, scaling_factor=1.5305, shift_factor=0.0609
    )
    vae = releases.vae(folder, latent_channels=16, **latents)
    (first, words), (second, words_2) = clip_text(True, 7), clip_text(True, 8)
    releases.flan_t5(folder / "t5", width=32)
    torch.manual_seed(9)
    net = SD3Transformer2DModel(**SD35, dual_attention_layers=dual).eval()
    pipeline = StableDiffusion3Pipeline(
        vae=vae,
        text_encoder=first,
        tokenizer=words,
        text_encoder_2=second,
        tokenizer_2=words_2,
        text_encoder_3=T5EncoderModel.from_pretrained(folder / "t5").eval(),
        tokenizer_3=releases.tokenizer(None, "</s>", "<pad>")[0],
        transformer=net,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )
    return _saved(pipeline, folder)


def _saved(pipeline: Any, folder: Path) -> Any:
    pipeline.save_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
