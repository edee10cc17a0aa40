"""Stable Diffusion XL as a denoiser, by diffusers' UNet2DConditionModel."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Unpack

import torch
from jaxtyping import Float
from torch import Tensor

from tinyflux_pl.core.errors import ConfigError, SpecMismatch
from tinyflux_pl.core.hint_forms import PIXELS
from tinyflux_pl.core.protocols import Path
from tinyflux_pl.core.specs import LatentSpec, TextSpec
from tinyflux_pl.core.transfer import to_device
from tinyflux_pl.core.types import Conditioning, Prediction
from tinyflux_pl.denoisers.released import DiffusersNetwork, Source
from tinyflux_pl.denoisers.released_control import ReleasedControl
from tinyflux_pl.denoisers.released_denoiser import ReleasedDenoiser
from tinyflux_pl.diffusion.paths import EDMPath, VPPath
from tinyflux_pl.diffusion.prediction import check_kind
from tinyflux_pl.weights.key_layout import KeyLayout

HINT_CHANNELS = (16, 32, 96, 256)  # of the map's convolutions, each but the first halves its sides
PREFIX = "model.diffusion_model."  # without which diffusers' table does not read a key


def from_original(tensors: dict[str, Tensor], structure: dict[str, Any]) -> dict[str, Tensor]:
    """Convert Stability's keys to diffusers' by its own table, which drops unknown keys."""
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    prefixed = {PREFIX + key: value for key, value in tensors.items()}
    converted = convert_ldm_unet_checkpoint(prefixed, {"class_embed_type": None, **structure})
    used = {id(value) for value in converted.values()}
    return converted | {key: value for key, value in tensors.items() if id(value) not in used}


def original_layer(name: str) -> str:
    """Stability's name of a layer inside an attention of diffusers' UNet; "" for any other."""
    block = re.fullmatch(r"(?:(down|up)_blocks\.(\d+)|mid_block)\.attentions\.(\d+)\.(.+)", name)
    if block is None:
        return ""
    kind, level, index, rest = block.groups()
    if kind is None:
        return f"middle_block.1.{rest}"
    if kind == "down":  # two residual blocks a level, then the one that halves the sides
        return f"input_blocks.{3 * int(level) + 1 + int(index)}.1.{rest}"
    return f"output_blocks.{3 * int(level) + int(index)}.1.{rest}"


class SDXLDenoiser(ReleasedDenoiser):
    """SDXL's UNet on a variance preserving path with noise at t = 1.

    x_t (B, 4, H, W) and t (B,) -> noise, v or data, as it was trained. `cond.size_ids` (B, 6) are
    original height and width, crop top and left, target height and width, in pixels; None means an
    image of x_t's own size, uncropped.
    """

    name = "sdxl"
    path: VPPath | EDMPath
    patch_size = 1
    released = DiffusersNetwork(
        "UNet2DConditionModel",
        subfolder="unet",
        original=KeyLayout("input_blocks.", from_original),
        unread=("^v_pred$", "^ztsnr$"),  # read by app.released.release_settings
    )
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0")
    component = "unet"
    hint_form = PIXELS

    def __init__(
        self,
        net: Any,
        latent_spec: LatentSpec,
        text_spec: TextSpec,
        path: Path,
        image_size: int = 1024,
        prediction: str = "epsilon",
    ) -> None:
        super().__init__(net, latent_spec, text_spec, path, image_size, prediction=prediction)
        check_kind(prediction, "model.prediction")
        self.prediction = prediction
        self.sign = 1
        if path.name == "edm":  # its networks answer in v, those of the epsilon kind in -v
            if prediction not in ("epsilon", "v"):
                cure = "model.prediction=epsilon or v, as the release was trained"
                raise SpecMismatch(
                    f"prediction={prediction} on EDM's path", where=self.name, cure=cure
                )
            self.prediction = "v"
            self.sign = -1 if prediction == "epsilon" else 1

    @classmethod
    def original_layers(cls, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """The layers as numbered in Stability's blocks: down, middle, up."""
        originals = {name: original_layer(name) for name in names}
        return {original: (name,) for name, original in originals.items() if original}

    def require_path(self) -> None:
        """Raise SpecMismatch unless the path preserves variance."""
        if not isinstance(self.path, VPPath | EDMPath):
            what = f"trained on a variance preserving path, not on {self.path}"
            raise SpecMismatch(what, where=self.name, cure="path=vp")

    def network_widths(self) -> dict[str, int]:
        """The pooled text is read together with six embedded sizes."""
        config = self.net.config
        sizes = 6 * (config["addition_time_embed_dim"] or 0)
        return {
            "latent_channels": config["in_channels"],
            "text_width": config["cross_attention_dim"],
            "pooled_width": (config["projection_class_embeddings_input_dim"] or 0) - sizes,
        }

    @classmethod
    def small_structure(
        cls, structure: dict[str, Any], latent_spec: LatentSpec, text_spec: TextSpec
    ) -> dict[str, Any]:
        """As many levels, of 8 and 16 channels."""
        levels = len(structure["block_out_channels"])
        return {
            **structure,
            "block_out_channels": [8, *[16] * (levels - 1)],
            "transformer_layers_per_block": [1] * levels,
            "attention_head_dim": [1, *[2] * (levels - 1)],
            "norm_num_groups": 4,
            "cross_attention_dim": text_spec.width,
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 6 * 8 + text_spec.pooled,
        }

    def attach_control(self, depth: int | None) -> None:
        """diffusers' ControlNetModel: the whole encoder, with convolutions that fold the map."""
        if depth is not None:
            cure = "method.depth=null: the branch is the whole encoder"
            raise ConfigError("a UNet's branch has no depth", where="method.depth", cure=cure)
        halvings = self.latent_spec.downsample.bit_length() - 1
        if 2**halvings != self.latent_spec.downsample or halvings >= len(HINT_CHANNELS):
            what = f"a codec of {self.latent_spec.downsample} pixels a cell"
            cure = "a codec of 1, 2, 4 or 8"
            raise ConfigError(f"no control branch for {what}", where="codec", cure=cure)
        channels = HINT_CHANNELS[: halvings + 1]
        self.control = ReleasedControl(
            "ControlNetModel", self.net, conditioning_embedding_out_channels=channels
        )

    def forward(
        self, x_t: Float[Tensor, "b c h w"], t: Float[Tensor, " b"], cond: Conditioning
    ) -> Prediction:
        """The noise (B, C, H, W), or v, or the data, as the release predicts."""
        self.require_readable(cond)
        text_tokens, pooled = self.full_text(cond)
        sizes = self.default_size_ids(x_t) if cond.size_ids is None else cond.size_ids
        added = {"text_embeds": pooled, "time_ids": to_device(sizes, x_t.device)}
        inputs = {
            "sample": x_t.to(self.net_dtype),
            "timestep": self.path.network_time(t.float()),
            "encoder_hidden_states": text_tokens,
            "added_cond_kwargs": added,
        }
        residuals: dict[str, Any] = {}
        if self.branch is not None:
            down, middle = self.branch(**inputs, controlnet_cond=cond.hint)
            typed = tuple(each.to(self.net_dtype) for each in down)
            residuals["down_block_additional_residuals"] = typed
            residuals["mid_block_additional_residual"] = middle.to(self.net_dtype)
        output = self.net(**inputs, **residuals, return_dict=False)[0]
        return Prediction(output if self.sign == 1 else -output)

    def default_size_ids(self, x_t: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 6"]:
        """Size ids of uncropped images of x_t's own size."""
        height, width = (side * self.latent_spec.downsample for side in x_t.shape[-2:])
        return torch.tensor([[height, width, 0, 0, height, width]], dtype=torch.float32).expand(
            len(x_t), -1
        )


def build(
    latent_spec: LatentSpec,
    text_spec: TextSpec,
    path: Path,
    *,
    structure: dict[str, Any],
    image_size: int | None = None,
    prediction: str | None = None,
    **source: Unpack[Source],
) -> ReleasedDenoiser:
    """SDXL from its `source`; `structure` is for a file that has no config.json beside it.

    `image_size` None is what the release itself draws: its sample_size. `prediction` None is
    epsilon.
    """
    options = {"prediction": prediction or "epsilon"}
    return SDXLDenoiser.from_release(
        latent_spec, text_spec, path, structure, source, image_size, **options
    )
