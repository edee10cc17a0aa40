"""FLUX.1 (dev, schnell, Kontext, Fill) as a denoiser, by diffusers' FluxTransformer2DModel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import torch
from jaxtyping import Float
from torch import Tensor

from tinyflux_pl.core.block_stack import StackBlock, stack_of
from tinyflux_pl.core.divisible_inputs import DivisibleInput
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.protocols import Path
from tinyflux_pl.core.specs import LatentSpec, TextSpec
from tinyflux_pl.core.types import Conditioning, Prediction
from tinyflux_pl.denoisers.exact_time import ExactTime
from tinyflux_pl.denoisers.flux1_inputs import divisible_inputs
from tinyflux_pl.denoisers.flux1_layout import ORIGINAL, original_layers, to_original
from tinyflux_pl.denoisers.packing import joined_pictures, patchify, unpatchify
from tinyflux_pl.denoisers.released import DiffusersNetwork, Source
from tinyflux_pl.denoisers.released_control import ReleasedControl
from tinyflux_pl.denoisers.released_denoiser import BFL, DIFFUSERS, ReleasedDenoiser
from tinyflux_pl.denoisers.rotation_cache import RotationCache

CONTROL_DEPTH = 5  # double blocks of a control branch, where there are as many


class Flux1Denoiser(ReleasedDenoiser):
    """x_t (B, C, H, W) and t (B,), 1 at noise -> velocity noise - data.

    `cond.references` (Kontext) join the image along the sequence, the k-th with k + 1 as the first
    of its position ids, and are cut off the output. `cond.inpaint` (Fill) joins it along the
    channels. The guidance input of distilled networks is `cond.embedded_guidance`, or
    `training_guidance` where that is None.
    """

    name = "flux1"
    released = DiffusersNetwork(
        "FluxTransformer2DModel",
        original=ORIGINAL,
        overflows="the reference clips FLUX.1's residual streams at 65504 in it",
    )
    reads_references = True
    layouts = (DIFFUSERS, BFL)
    lora_targets = (
        "transformer_blocks.*.attn.to_[qkv]",
        "transformer_blocks.*.attn.to_out.0",
        "transformer_blocks.*.attn.add_[qkv]_proj",
        "transformer_blocks.*.attn.to_add_out",
        "single_transformer_blocks.*.attn.to_[qkv]",
        "single_transformer_blocks.*.proj_mlp",
        "single_transformer_blocks.*.proj_out",
    )

    def __init__(
        self,
        net: Any,
        latent_spec: LatentSpec,
        text_spec: TextSpec,
        path: Path,
        image_size: int = 1024,
        training_guidance: float = 1.0,
        reference_size: str | None = None,
    ) -> None:
        options = {"training_guidance": training_guidance, "reference_size": reference_size}
        super().__init__(net, latent_spec, text_spec, path, image_size, **options)
        self.reference_size = reference_size
        self.reads_guidance = bool(net.config["guidance_embeds"])
        self.inpaint_channels = (
            net.config["in_channels"] // self.patch_size**2 - latent_spec.channels
        )
        self._exact = ExactTime(net.time_text_embed)
        self._rotation = RotationCache(net.pos_embed)

    def original_tensors(self) -> dict[str, Tensor]:
        return to_original(self.net.state_dict())

    @classmethod
    def original_layers(cls, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """The layers as in Black Forest Labs' code, where query, key and value are one layer."""
        return original_layers(names)

    def network_widths(self) -> dict[str, int]:
        """In and out channels differ where the network reads a masked picture."""
        config = self.net.config
        return {
            **super().network_widths(),
            "latent_channels": (config["out_channels"] or config["in_channels"])
            // self.patch_size**2,
            "pooled_width": config["pooled_projection_dim"],
        }

    @classmethod
    def small_structure(
        cls, structure: dict[str, Any], latent_spec: LatentSpec, text_spec: TextSpec
    ) -> dict[str, Any]:
        """Two blocks of each kind, two heads of 16 channels."""
        return {
            **structure,
            "num_layers": 2,
            "num_single_layers": 2,
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "axes_dims_rope": [4, 6, 6],
            "joint_attention_dim": text_spec.width,
            "pooled_projection_dim": text_spec.pooled,
        }

    def attach_control(self, depth: int | None) -> None:
        """diffusers' FluxControlNetModel over double blocks; the map is packed as the image is."""
        if self.inpaint_channels:
            cure = "model=flux1_dev or flux1_schnell"
            raise ConfigError(
                "a control branch with an inpainting input", where="method", cure=cure
            )
        most = self.net.config["num_layers"]
        depth = self.checked_depth(depth, min(CONTROL_DEPTH, most), most)
        kind = "FluxControlNetModel"
        self.control = ReleasedControl(kind, self.net, num_layers=depth, num_single_layers=0)
        self.control.freeze_unused(f"transformer_blocks.{depth - 1}")
        self._exact_control = ExactTime(self.control.net.time_text_embed)

    def block_stack(self) -> tuple[StackBlock, ...]:
        """Its blocks, whose image tokens come last in the streams of both kinds."""
        streams = ("encoder_hidden_states", "hidden_states")
        return (
            *stack_of(self.net.transformer_blocks, streams, "hidden_states", _modulated),
            *stack_of(self.net.single_transformer_blocks, streams, "hidden_states"),
        )

    def divisible_inputs(self) -> Sequence[DivisibleInput]:
        return divisible_inputs(self.net)

    def forward(
        self, x_t: Float[Tensor, "b c h w"], t: Float[Tensor, " b"], cond: Conditioning
    ) -> Prediction:
        """The velocity (B, C, H, W)."""
        self.require_readable(cond)
        image = x_t if cond.inpaint is None else torch.cat([x_t, cond.inpaint.to(x_t)], 1)
        pictures = [image, *cond.references]
        tokens, ids = joined_pictures(pictures, self.patch_size)
        text_tokens, pooled = self.full_text(cond)
        guidance = self.guidance(t, cond)
        scalars = (t,) if guidance is None else (t, guidance)
        self._exact.set(*scalars)
        self._rotation.set(text_tokens.shape[1], *(picture.shape[2:] for picture in pictures))
        inputs = {
            "hidden_states": tokens.to(self.net_dtype),
            "encoder_hidden_states": text_tokens,
            "pooled_projections": pooled,
            "timestep": t,
            "guidance": guidance,
            "img_ids": ids,
            "txt_ids": ids.new_zeros(text_tokens.shape[1], ids.shape[1]),
        }
        residuals = None
        if self.branch is not None and cond.hint is not None:
            self._exact_control.set(*scalars)
            hint = patchify(cond.hint, self.patch_size)
            added, _ = self.branch(**inputs, controlnet_cond=hint)
            residuals = [each.to(self.net_dtype) for each in added]
        output = self.net(**inputs, controlnet_block_samples=residuals, return_dict=False)[0]
        height, width = x_t.shape[-2:]
        output = output[:, : height * width // self.patch_size**2]
        return Prediction(unpatchify(output, self.patch_size, height, width))


def _modulated(block: Any, inputs: dict[str, Any]) -> Tensor:
    return block.norm1(inputs["hidden_states"], emb=inputs["temb"])[0]


def build(
    latent_spec: LatentSpec,
    text_spec: TextSpec,
    path: Path,
    *,
    structure: dict[str, Any],
    image_size: int = 1024,
    training_guidance: float = 1.0,
    reference_size: str | None = None,
    **source: Unpack[Source],
) -> ReleasedDenoiser:
    """FLUX.1 from its `source`; `structure` is for a file that has no config.json beside it."""
    options = {"training_guidance": training_guidance, "reference_size": reference_size}
    return Flux1Denoiser.from_release(
        latent_spec, text_spec, path, structure, source, image_size, **options
    )
