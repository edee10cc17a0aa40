"""Stable Diffusion 3.5 (medium, large) as a denoiser, by diffusers' SD3Transformer2DModel."""

from __future__ import annotations

from typing import Any, Unpack

from jaxtyping import Float
from torch import Tensor

from tinyflux_pl.core.block_stack import StackBlock, stack_of
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.protocols import Path
from tinyflux_pl.core.specs import LatentSpec, TextSpec
from tinyflux_pl.core.types import Conditioning, Prediction
from tinyflux_pl.denoisers.released import DiffusersNetwork, Source
from tinyflux_pl.denoisers.released_control import ReleasedControl
from tinyflux_pl.denoisers.released_denoiser import ReleasedDenoiser
from tinyflux_pl.weights.key_layout import KeyLayout


def from_original(tensors: dict[str, Tensor], _: dict[str, Any]) -> dict[str, Tensor]:
    """Stability's keys -> diffusers', by diffusers' own table.

    The table removes the keys that it converts from the tensors; the others are returned as they
    are.
    """
    from diffusers.loaders.single_file_utils import convert_sd3_transformer_checkpoint_to_diffusers

    remaining = dict(tensors)
    return convert_sd3_transformer_checkpoint_to_diffusers(remaining) | remaining


class SD3Denoiser(ReleasedDenoiser):
    """x_t (B, 16, H, W) and t (B,), 1 at noise -> velocity noise - data.

    The network cuts its patches itself and adds a table of positions, from whose middle it takes
    the image's.
    """

    name = "sd3"
    released = DiffusersNetwork(
        "SD3Transformer2DModel", original=KeyLayout("joint_blocks.", from_original)
    )
    lora_targets = (
        "transformer_blocks.*.attn.to_[qkv]",
        "transformer_blocks.*.attn.to_out.0",
        "transformer_blocks.*.attn.add_[qkv]_proj",
        "transformer_blocks.*.attn.to_add_out",
        "transformer_blocks.*.attn2.to_[qkv]",
        "transformer_blocks.*.attn2.to_out.0",
    )

    def __init__(
        self,
        net: Any,
        latent_spec: LatentSpec,
        text_spec: TextSpec,
        path: Path,
        image_size: int = 1024,
    ) -> None:
        super().__init__(net, latent_spec, text_spec, path, image_size)
        self.patch_size = net.config["patch_size"]

    def network_widths(self) -> dict[str, int]:
        """The defaults, and the pooled text."""
        return {
            **super().network_widths(),
            "pooled_width": self.net.config["pooled_projection_dim"],
        }

    def require_size(self, height: int, width: int) -> None:
        """Raise ConfigError for a side longer than the table of positions."""
        positions = self.net.config["pos_embed_max_size"]
        if positions is None:
            return
        most = positions * self.patch_size * self.latent_spec.downsample
        for name, side in (("height", height), ("width", width)):
            if side > most:
                what = f"{side} pixels: the network's table of positions ends at {most}"
                raise ConfigError(
                    what, where=name, cure=f"at most {most} x {most} pixels: {name}={most}"
                )

    @classmethod
    def small_structure(
        cls, structure: dict[str, Any], latent_spec: LatentSpec, text_spec: TextSpec
    ) -> dict[str, Any]:
        """Two blocks, two heads of 16 channels."""
        return {
            **structure,
            "num_layers": 2,
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "caption_projection_dim": 32,
            "joint_attention_dim": text_spec.width,
            "pooled_projection_dim": text_spec.pooled,
            "dual_attention_layers": [
                layer for layer in structure.get("dual_attention_layers", ()) if layer < 2
            ],
        }

    def attach_control(self, depth: int | None) -> None:
        """Attach diffusers' SD3ControlNetModel, by default with half of the blocks.

        The latents of the map are embedded like those of the image.
        """
        most = self.net.config["num_layers"] - 1  # the last block has no answer for the text
        depth = self.checked_depth(depth, max(1, most // 2), most)
        dual = [k for k in self.net.config["dual_attention_layers"] if k < depth]
        self.control = ReleasedControl(
            "SD3ControlNetModel",
            self.net,
            num_layers=depth,
            dual_attention_layers=dual,
            force_zeros_for_pooled_projection=False,
        )
        self.control.freeze_unused(f"transformer_blocks.{depth - 1}")

    def block_stack(self) -> tuple[StackBlock, ...]:
        """Its blocks; the last of them drops the text."""
        streams = ("encoder_hidden_states", "hidden_states")
        return stack_of(self.net.transformer_blocks, streams, "hidden_states", _modulated)

    def forward(
        self, x_t: Float[Tensor, "b c h w"], t: Float[Tensor, " b"], cond: Conditioning
    ) -> Prediction:
        """The velocity (B, C, H, W)."""
        self.require_readable(cond)
        text_tokens, pooled = self.full_text(cond)
        inputs = {
            "hidden_states": x_t.to(self.net_dtype),
            "encoder_hidden_states": text_tokens,
            "pooled_projections": pooled,
            "timestep": t.float() * 1000,
        }
        residuals = None
        if self.branch is not None:
            (added,) = self.branch(**inputs, controlnet_cond=cond.hint)
            residuals = [each.to(self.net_dtype) for each in added]
        output = self.net(**inputs, block_controlnet_hidden_states=residuals, return_dict=False)[0]
        return Prediction(output)


def _modulated(block: Any, inputs: dict[str, Any]) -> Tensor:
    return block.norm1(inputs["hidden_states"], emb=inputs["temb"])[0]


def build(
    latent_spec: LatentSpec,
    text_spec: TextSpec,
    path: Path,
    *,
    structure: dict[str, Any],
    image_size: int | None = None,
    **source: Unpack[Source],
) -> ReleasedDenoiser:
    """SD3.5 from its `source`; `structure` is for a file that has no config.json beside it.

    `image_size` None is what the release itself draws: its sample_size.
    """
    return SD3Denoiser.from_release(latent_spec, text_spec, path, structure, source, image_size)
