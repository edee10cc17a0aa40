"""FLUX.2 (dev, klein) as a denoiser, by diffusers' Flux2Transformer2DModel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tinyflux_pl.core.block_stack import StackBlock, stack_of
from tinyflux_pl.core.protocols import Path
from tinyflux_pl.core.specs import LatentSpec, TextSpec
from tinyflux_pl.core.transfer import to_device
from tinyflux_pl.core.types import Conditioning, Prediction
from tinyflux_pl.denoisers.exact_time import ExactTime
from tinyflux_pl.denoisers.packing import inpaint_channels, patchify, unpatchify
from tinyflux_pl.denoisers.released import DiffusersNetwork, Source
from tinyflux_pl.denoisers.released_denoiser import ReleasedDenoiser
from tinyflux_pl.weights.key_layout import KeyLayout

REFERENCE_TIME = 10  # the first position id of the k-th reference is this times k + 1


def picture_ids(
    sizes: Sequence[tuple[int, int]], times: Sequence[int], device: torch.device | str = "cpu"
) -> Float[Tensor, "n 4"]:
    """Ids (time, y, x, 0) of pictures of so many latent rows and columns, fp32."""
    grids = [
        torch.cartesian_prod(
            torch.tensor([time]), torch.arange(height), torch.arange(width), torch.arange(1)
        )
        for (height, width), time in zip(sizes, times, strict=True)
    ]
    return to_device(torch.cat(grids).float(), device)


def text_ids(length: int, device: torch.device | str = "cpu") -> Float[Tensor, "l 4"]:
    """Ids (0, 0, 0, l) of a text's tokens, fp32."""
    ids = torch.zeros(length, 4, device=device)
    ids[:, 3] = torch.arange(length, device=device)
    return ids


def from_original(tensors: dict[str, Tensor], _: dict[str, Any]) -> dict[str, Tensor]:
    """Convert Black Forest Labs' keys to diffusers' by its own table, for any width."""
    from diffusers.loaders.single_file_utils import (
        convert_flux2_transformer_checkpoint_to_diffusers,
    )

    return convert_flux2_transformer_checkpoint_to_diffusers(tensors)


class Flux2Denoiser(ReleasedDenoiser):
    """x_t (B, 128, H, W) and t (B,), 1 at noise -> velocity noise - data.

    The codec has folded 2 x 2 cells, so a token is one cell. `cond.references` join the image along
    the sequence at times 10, 20, ... and are cut off the output. dev reads a guidance value, klein
    none. `inpaint` is an extension of ours, which no release has: a trainable input for
    `cond.inpaint` whose weights begin at zero, so that the network at first predicts as before.
    """

    name = "flux2"
    patch_size = 1
    released = DiffusersNetwork(
        "Flux2Transformer2DModel",
        original=KeyLayout("double_blocks.", from_original),
        overflows="the reference clips FLUX.2's residual streams at 65504 in it",
    )
    reads_references = True
    lora_targets = (
        "transformer_blocks.*.attn.to_[qkv]",
        "transformer_blocks.*.attn.to_out.0",
        "transformer_blocks.*.attn.add_[qkv]_proj",
        "transformer_blocks.*.attn.to_add_out",
        "single_transformer_blocks.*.attn.to_qkv_mlp_proj",
        "single_transformer_blocks.*.attn.to_out",
    )

    def __init__(
        self,
        net: Any,
        latent_spec: LatentSpec,
        text_spec: TextSpec,
        path: Path,
        image_size: int = 1024,
        training_guidance: float = 1.0,
        reference_size: str = "area",
        inpaint: bool = False,
    ) -> None:
        options = {
            "training_guidance": training_guidance,
            "reference_size": reference_size,
            "inpaint": inpaint,
        }
        super().__init__(net, latent_spec, text_spec, path, image_size, **options)
        self.reference_size = reference_size
        self.reads_guidance = bool(net.config["guidance_embeds"])
        self._exact = ExactTime(net.time_guidance_embed.time_proj, in_turn=True)
        self._inpaint_tokens: Tensor | None = None
        self.stream_width = net.config["num_attention_heads"] * net.config["attention_head_dim"]
        if inpaint:
            self.inpaint_channels = inpaint_channels(latent_spec)
            with torch.device(net.device):
                self.inpaint_in = nn.Linear(
                    self.inpaint_channels, net.x_embedder.out_features, bias=False
                ).to(net.dtype)
            nn.init.zeros_(self.inpaint_in.weight)
            net.x_embedder.register_forward_hook(self._add_inpaint)

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
            "axes_dims_rope": [4, 4, 4, 4],
            "joint_attention_dim": text_spec.width,
            "timestep_guidance_channels": 16,
        }

    def block_stack(self) -> tuple[StackBlock, ...]:
        """Its blocks, whose image tokens come last in the streams of both kinds."""
        streams = ("encoder_hidden_states", "hidden_states")
        return (
            *stack_of(self.net.transformer_blocks, streams, "hidden_states", _modulated),
            *stack_of(self.net.single_transformer_blocks, ("hidden_states",), "hidden_states"),
        )

    def forward(
        self, x_t: Float[Tensor, "b c h w"], t: Float[Tensor, " b"], cond: Conditioning
    ) -> Prediction:
        """The velocity (B, C, H, W)."""
        self.require_readable(cond)
        pictures = [x_t, *cond.references]
        tokens = torch.cat([patchify(picture, 1) for picture in pictures], 1)
        sizes = [(picture.shape[-2], picture.shape[-1]) for picture in pictures]
        text_tokens, _ = self.full_text(cond)
        guidance = self.guidance(t, cond)
        self._inpaint_tokens = (
            None if cond.inpaint is None else patchify(cond.inpaint, 1).to(self.net_dtype)
        )
        times = [REFERENCE_TIME * k for k in range(len(pictures))]
        inputs = {
            "hidden_states": tokens.to(self.net_dtype),
            "encoder_hidden_states": text_tokens,
            "timestep": t,
            "guidance": guidance,
            "img_ids": picture_ids(sizes, times, x_t.device),
            "txt_ids": text_ids(text_tokens.shape[1], x_t.device),
        }

        def predict() -> Tensor:
            self._exact.set(t, guidance)
            return self.net(**inputs, return_dict=False)[0]

        output = self.guided(predict, cond.hint)
        height, width = sizes[0]
        return Prediction(unpatchify(output[:, : height * width], 1, height, width))

    def _add_inpaint(self, _: nn.Module, __: Any, embedded: Tensor) -> Tensor:
        return (
            embedded
            if self._inpaint_tokens is None
            else embedded + self.inpaint_in(self._inpaint_tokens)
        )


def _modulated(block: Any, inputs: dict[str, Any]) -> Tensor:
    from diffusers.models.transformers.transformer_flux2 import Flux2Modulation

    shift, scale, _ = Flux2Modulation.split(inputs["temb_mod_img"], 2)[0]
    return (1 + scale) * block.norm1(inputs["hidden_states"]) + shift


def build(
    latent_spec: LatentSpec,
    text_spec: TextSpec,
    path: Path,
    *,
    structure: dict[str, Any],
    image_size: int = 1024,
    training_guidance: float = 1.0,
    reference_size: str = "area",
    inpaint: bool = False,
    **source: Unpack[Source],
) -> ReleasedDenoiser:
    """FLUX.2 from its `source`; `structure` is for a file that has no config.json beside it."""
    options = {
        "training_guidance": training_guidance,
        "reference_size": reference_size,
        "inpaint": inpaint,
    }
    return Flux2Denoiser.from_release(
        latent_spec, text_spec, path, structure, source, image_size, **options
    )
