"""FLUX.3 (image) as a denoiser, by diffusers' Flux3Transformer2DModel."""

from __future__ import annotations

from typing import Any, Unpack

import torch
from jaxtyping import Float
from torch import Tensor

from tinyflux_pl.core.block_stack import StackBlock, stack_of
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.protocols import Path
from tinyflux_pl.core.specs import LatentSpec, TextSpec
from tinyflux_pl.core.types import Conditioning, Prediction
from tinyflux_pl.denoisers.exact_time import ExactTime
from tinyflux_pl.denoisers.flux2 import picture_ids, text_ids
from tinyflux_pl.denoisers.packing import patchify, unpatchify
from tinyflux_pl.denoisers.released import DiffusersNetwork, Source
from tinyflux_pl.denoisers.released_denoiser import ReleasedDenoiser
from tinyflux_pl.weights.key_layout import KeyLayout

POSITION_SCALE = 0.5  # rows and columns count half, as the network was trained


def from_original(tensors: dict[str, Tensor], _: dict[str, Any]) -> dict[str, Tensor]:
    """Convert Black Forest Labs' keys to diffusers' by its own table, without training heads."""
    from diffusers.loaders.single_file_utils import (
        convert_flux3_transformer_checkpoint_to_diffusers,
    )

    return convert_flux3_transformer_checkpoint_to_diffusers(tensors)


class Flux3Denoiser(ReleasedDenoiser):
    """x_t (B, 128, H, W) and t (B,), 1 at noise -> velocity noise - data.

    `cond.references` have their own blocks and their own index -1, -2, ... on the last axis of the
    ids; the text is read at the length of its own window. Step-distilled networks (flow_map), which
    read the end of a step too, are refused: a velocity field has no end.
    """

    name = "flux3"
    patch_size = 1
    released = DiffusersNetwork(
        "Flux3Transformer2DModel", original=KeyLayout("content_mode_blocks.", from_original)
    )
    reads_references = True
    reference_parts = ("image_cond",)
    lora_targets = (
        "mode_blocks.*.attn.to_[qkv]",
        "mode_blocks.*.attn.to_out.0",
        "txt_mode_blocks.*.attn.to_[qkv]",
        "txt_mode_blocks.*.attn.to_out.0",
        "single_transformer_blocks.*.attn.to_[qkv]",
        "single_transformer_blocks.*.attn.to_out.0",
    )

    def __init__(
        self,
        net: Any,
        latent_spec: LatentSpec,
        text_spec: TextSpec,
        path: Path,
        image_size: int = 1024,
        reference_size: str = "area",
    ) -> None:
        super().__init__(
            net, latent_spec, text_spec, path, image_size, reference_size=reference_size
        )
        if net.config["flow_map"]:
            cure = "use the base network, which is not step-distilled"
            raise ConfigError(
                "a step-distilled (flow-map) FLUX.3 is not supported", where=self.name, cure=cure
            )
        self.reference_size = reference_size
        self._exact = ExactTime(net.time_proj, in_turn=True)
        self.stream_width = net.config["num_attention_heads"] * net.config["attention_head_dim"]

    @classmethod
    def small_structure(
        cls, structure: dict[str, Any], latent_spec: LatentSpec, text_spec: TextSpec
    ) -> dict[str, Any]:
        """Three blocks, two heads of 16 channels."""
        return {
            **structure,
            "num_layers": 1,
            "num_single_layers": 2,
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "axes_dims_rope": [4, 4, 4, 4],
            "joint_attention_dim": text_spec.width,
            "timestep_channels": 16,
        }

    def block_stack(self) -> tuple[StackBlock, ...]:
        """Its joint blocks, after those of each kind of token alone."""
        streams = ("encoder_hidden_states", "hidden_states")
        return stack_of(self.net.single_transformer_blocks, streams, "hidden_states")

    def forward(
        self, x_t: Float[Tensor, "b c h w"], t: Float[Tensor, " b"], cond: Conditioning
    ) -> Prediction:
        """The velocity (B, C, H, W)."""
        self.require_readable(cond)
        lengths = cond.text.lengths()
        predictions: list[Tensor] = []
        order: list[int] = []
        # the network has no mask: texts of one length go together
        for length in sorted(set(lengths)):
            rows = [i for i, row_length in enumerate(lengths) if row_length == length]
            text_tokens = cond.text.tokens[rows, :length].to(self.net_dtype)
            hint = None if cond.hint is None else cond.hint[rows]
            references = [r[rows] for r in cond.references]
            predictions.append(self._predict(x_t[rows], t[rows], text_tokens, references, hint))
            order += rows
        # back in the order of the batch, in the dtype of the network or of autocast
        return Prediction(torch.cat(predictions)[torch.tensor(order).argsort()])

    def _predict(
        self,
        x_t: Tensor,
        t: Tensor,
        text_tokens: Tensor,
        references: list[Tensor],
        hint: Tensor | None,
    ) -> Tensor:
        height, width = x_t.shape[-2:]
        reference_inputs: dict[str, Any] = {}
        if references:
            tokens = torch.cat([patchify(reference, 1) for reference in references], 1)
            ids = [self._ids(reference, -1.0 - k) for k, reference in enumerate(references)]
            reference_inputs = {
                "image_cond_hidden_states": tokens.to(self.net_dtype),
                "image_cond_ids": torch.cat(ids),
            }
        inputs = {
            "hidden_states": patchify(x_t, 1).to(self.net_dtype),
            "encoder_hidden_states": text_tokens,
            "timestep": t,
            "img_ids": self._ids(x_t, 0.0),
            "txt_ids": text_ids(text_tokens.shape[1], x_t.device),
        }

        def predict() -> Tensor:
            self._exact.set(t, torch.zeros_like(t))
            return self.net(**inputs, **reference_inputs, return_dict=False)[0]

        return unpatchify(self.guided(predict, hint), 1, height, width)

    def _ids(self, picture: Tensor, index: float) -> Tensor:
        ids = picture_ids([(picture.shape[-2], picture.shape[-1])], [0], picture.device)
        ids[:, 1:3] *= POSITION_SCALE
        ids[:, 3] = index
        return ids


def build(
    latent_spec: LatentSpec,
    text_spec: TextSpec,
    path: Path,
    *,
    structure: dict[str, Any],
    image_size: int = 1024,
    reference_size: str = "area",
    **source: Unpack[Source],
) -> ReleasedDenoiser:
    """FLUX.3 from its `source`; `structure` is for a file that has no config.json beside it."""
    options = {"reference_size": reference_size}
    return Flux3Denoiser.from_release(
        latent_spec, text_spec, path, structure, source, image_size, **options
    )
