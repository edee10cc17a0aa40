"""FluxFlow's flow network as a denoiser: v of latents on a VP path, from text tokens."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from tinyflux_pl.core.block_stack import StackBlock, stack_of
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.protocols import Path
from tinyflux_pl.core.specs import LatentSpec, TextSpec, plain
from tinyflux_pl.core.types import Conditioning, Prediction
from tinyflux_pl.denoisers.denoiser import DenoiserModule
from tinyflux_pl.diffusion.paths import progress_toward
from tinyflux_pl.diffusion.prediction import check_kind
from tinyflux_pl.nets.fluxflow.processor import FluxFlowProcessor

ROTATED = 4  # channels of a head come in pairs of pairs: rows and columns


@dataclass(frozen=True)
class FluxFlowConfig:
    """Sizes of the network, and what it predicts."""

    width: int = 128
    heads: int = 8
    layers: int = 12
    prediction: str = "v"

    def __post_init__(self) -> None:
        check_kind(self.prediction, "model.prediction")
        if self.heads < 1 or self.width % (self.heads * ROTATED):
            raise ConfigError(
                f"{self.heads} heads of a width of {self.width}",
                where="model.heads",
                cure=f"a width that {ROTATED} times the heads divides",
            )


class FluxFlowDenoiser(DenoiserModule):
    """FluxFlow's flow network: x_t (B, C, h, w), t (B,) and text -> v, or as configured.

    t is in the path's time; text tokens and pooled text are read. Latents of any size and any
    codec; a cell is a token.
    """

    name = "fluxflow"
    lora_targets = (
        "blocks.*.self_attn.*_proj",
        "blocks.*.cross_attn.*_proj",
        "blocks.*.mlp.position",
        "blocks.*.mlp.out_proj",
    )

    def __init__(
        self, config: FluxFlowConfig, latent_spec: LatentSpec, text_spec: TextSpec, path: Path
    ) -> None:
        super().__init__()
        self.config, self.prediction = config, config.prediction
        self.latent_spec, self.text_spec, self.path = latent_spec, text_spec, path
        self.net = FluxFlowProcessor(
            latent_spec.channels,
            text_spec.width,
            text_spec.pooled,
            config.width,
            config.heads,
            config.layers,
        )

    def forward(
        self, x_t: Float[Tensor, "b c h w"], t: Float[Tensor, " b"], cond: Conditioning
    ) -> Prediction:
        """The prediction (B, C, h, w); the network's clock runs from noise (0) to data (1)."""
        self.require_readable(cond)
        time = progress_toward(self.path, t.float(), "data")
        text = cond.text
        dtype = self.net.x_in.weight.dtype
        tokens, pooled = text.tokens.to(dtype), text.pooled.to(dtype)
        return Prediction(self.net(x_t.to(dtype), time, tokens, text.mask, pooled))

    def block_stack(self) -> tuple[StackBlock, ...]:
        """Its blocks."""
        return stack_of(self.net.blocks, ("x",), "x")

    def enable_gradient_checkpointing(self) -> None:
        """Keep only each block's input for the backward pass and compute the rest again."""
        self.net.checkpointing = True

    def config_dict(self) -> dict[str, Any]:
        """Plain data that rebuilds this denoiser, without its path."""
        specs = {"latent_spec": plain(self.latent_spec), "text_spec": plain(self.text_spec)}
        return {"config": asdict(self.config), **specs}

    @classmethod
    def from_config(cls, config: dict[str, Any], path: Path) -> FluxFlowDenoiser:
        """The denoiser that `config_dict` describes, newly initialised."""
        sizes = FluxFlowConfig(**config["config"])
        latent_spec, text_spec = config["latent_spec"], config["text_spec"]
        return cls(sizes, LatentSpec(**latent_spec), TextSpec(**text_spec), path)


def build(
    latent_spec: LatentSpec,
    text_spec: TextSpec,
    path: Path,
    *,
    width: int = 128,
    heads: int = 8,
    layers: int = 12,
    prediction: str = "v",
) -> FluxFlowDenoiser:
    """A newly initialised denoiser whose other widths come from the specs."""
    config = FluxFlowConfig(width, heads, layers, prediction)
    return FluxFlowDenoiser(config, latent_spec, text_spec, path)
