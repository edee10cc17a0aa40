"""diffusers' UNet2DConditionModel as a denoiser: Stable Diffusion 1.5 and its flow teachers."""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.protocols import Path
from tinyflux_pl.core.specs import LatentSpec, TextSpec, plain
from tinyflux_pl.core.types import Conditioning, Prediction
from tinyflux_pl.denoisers.denoiser import DenoiserModule
from tinyflux_pl.denoisers.unet_attention import install
from tinyflux_pl.diffusion.prediction import check_kind
from tinyflux_pl.nets.text_refiner import TextRefiner


class UNetDenoiser(DenoiserModule):
    """A UNet on any path, for any prediction.

    x_t (B, C, H, W), t (B,) in the path's own time. The net reads `t * time_scale`: 1000 for the
    flow teachers, 999 for an index into a table of 1000 betas. Text tokens go to cross-attention,
    with their mask unless `masks_text` is False (Stable Diffusion attends to its padding); pooled
    text goes beside the time embedding when `unet_config` has class_embed_type "projection".
    With `text_layers` transformer layers the tokens read each other first; published UNets have
    none.
    """

    name = "unet"
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0")
    component = "unet"

    def __init__(
        self,
        unet_config: dict[str, Any],
        path: Path,
        prediction: str,
        latent_spec: LatentSpec,
        text_spec: TextSpec,
        time_scale: float = 1000.0,
        masks_text: bool = True,
        text_layers: int = 0,
    ) -> None:
        super().__init__()
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

        check_kind(prediction, "model.prediction")
        self.unet_config = {k: v for k, v in unet_config.items() if not k.startswith("_")}
        self.unet = UNet2DConditionModel(**self.unet_config)
        install(self.unet)
        self.text_layers = text_layers
        self.text_refiner = TextRefiner(text_spec.width, text_layers) if text_layers else None
        self.path = path
        self.prediction = prediction
        self.time_scale = float(time_scale)
        self.latent_spec = latent_spec
        self.text_spec = text_spec
        self.masks_text = masks_text
        net = self.unet.config
        _require_width("channels", net["in_channels"], latent_spec.channels)
        _require_width("text width", net["cross_attention_dim"], text_spec.width)
        self.reads_pooled = net["class_embed_type"] == "projection"
        if self.reads_pooled:
            _require_width(
                "pooled width", net["projection_class_embeddings_input_dim"], text_spec.pooled
            )

    @classmethod
    def shrunk(
        cls, node: dict[str, Any], latent_spec: LatentSpec, text_spec: TextSpec
    ) -> dict[str, Any]:
        """As many levels, of 8 and 16 channels."""
        levels = len(node["block_out_channels"])
        widths = [8, *[16] * (levels - 1)]
        return {**node, "block_out_channels": widths, "attention_head_dim": 2, "norm_num_groups": 4}

    def timestep(self, t: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """The path's time as the net was trained to read it, fp32 and continuous."""
        return t.float() * self.time_scale

    def inputs(
        self, x_t: Float[Tensor, "b c h w"], t: Float[Tensor, " b"], cond: Conditioning
    ) -> dict[str, Any]:
        """The keywords of diffusers for one forward."""
        tokens, mask = cond.text.tokens.to(x_t.dtype), cond.text.mask
        if self.text_refiner is not None:
            tokens = self.text_refiner(tokens, mask if self.masks_text else None)
        return {
            "sample": x_t,
            "timestep": self.timestep(t),
            "encoder_hidden_states": tokens,
            "encoder_attention_mask": mask if self.masks_text else None,
            "class_labels": cond.text.pooled.to(x_t.dtype) if self.reads_pooled else None,
        }

    def forward(
        self, x_t: Float[Tensor, "b c h w"], t: Float[Tensor, " b"], cond: Conditioning
    ) -> Prediction:
        """The prediction (B, C, H, W) in this denoiser's own space."""
        self.require_readable(cond)
        return Prediction(self.unet(**self.inputs(x_t, t, cond), return_dict=False)[0])

    def enable_gradient_checkpointing(self) -> None:
        """Keep only each block's input for the backward pass and compute the rest again."""
        self.unet.enable_gradient_checkpointing()

    def config_dict(self) -> dict[str, Any]:
        """Plain data that rebuilds this net, without its path.

        `text_layers` is left out where there are none: a cache's fingerprint has this.
        """
        added = {"text_layers": self.text_layers} if self.text_layers else {}
        return {
            "unet_config": self.unet_config,
            "prediction": self.prediction,
            "latent_spec": plain(self.latent_spec),
            "text_spec": plain(self.text_spec),
            "time_scale": self.time_scale,
            "masks_text": self.masks_text,
            **added,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], path: Path) -> "UNetDenoiser":
        """The net that `config_dict` describes, newly initialised."""
        specs: dict[str, Any] = {
            "latent_spec": LatentSpec(**config["latent_spec"]),
            "text_spec": TextSpec(**config["text_spec"]),
        }
        return cls(**{**config, **specs}, path=path)


def build_unet(
    latent_spec: LatentSpec,
    text_spec: TextSpec,
    path: Path,
    prediction: str,
    block_out_channels: Sequence[int] = (48, 80),
    attention_levels: Sequence[bool] = (False, True),
    layers_per_block: int = 1,
    attention_head_dim: int | Sequence[int] = 4,
    norm_num_groups: int = 8,
    pooled: bool = True,
    time_scale: float = 1000.0,
    text_layers: int = 0,
) -> UNetDenoiser:
    """A small UNet with self- and cross-attention at the given levels, finest first.

    `attention_head_dim` is diffusers' name for the number of heads; `text_layers` as UNetDenoiser
    has them.
    """
    if len(attention_levels) != len(block_out_channels):
        raise ConfigError(
            f"{len(attention_levels)} attention_levels for {len(block_out_channels)} "
            "block_out_channels",
            where="model.attention_levels",
            cure="give one true or false for each level",
        )
    attends = list(attention_levels)
    config: dict[str, Any] = {
        "in_channels": latent_spec.channels,
        "out_channels": latent_spec.channels,
        "block_out_channels": list(block_out_channels),
        "layers_per_block": layers_per_block,
        "down_block_types": ["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attends],
        "up_block_types": ["CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)],
        "cross_attention_dim": text_spec.width,
        "attention_head_dim": attention_head_dim
        if isinstance(attention_head_dim, int)
        else list(attention_head_dim),
        "norm_num_groups": norm_num_groups,
    }
    if pooled:
        config |= {
            "class_embed_type": "projection",
            "projection_class_embeddings_input_dim": text_spec.pooled,
        }
    return UNetDenoiser(
        config, path, prediction, latent_spec, text_spec, time_scale, text_layers=text_layers
    )


def _require_width(what: str, width: int, expected: int) -> None:
    if width != expected:
        raise ConfigError(
            f"the UNet's {what} is {width}, the specification says {expected}",
            where="unet_config",
            cure="give the UNet the codec and the text encoder that it was trained with",
        )
