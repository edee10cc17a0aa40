"""Flux over sequences as a denoiser: target sequences from noise, given condition sequences."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tinyflux_pl.core.block_stack import StackBlock, stack_of
from tinyflux_pl.core.errors import ConfigError, SpecMismatch
from tinyflux_pl.core.protocols import Path
from tinyflux_pl.core.specs import LatentSpec, TextSpec, plain
from tinyflux_pl.core.types import Conditioning, Prediction
from tinyflux_pl.denoisers.denoiser import DenoiserModule
from tinyflux_pl.denoisers.packing import image_ids
from tinyflux_pl.denoisers.token_selection import selected
from tinyflux_pl.diffusion.paths import progress_toward
from tinyflux_pl.nets.flux import Flux, FluxParams
from tinyflux_pl.nets.flux_blocks import modulated


class FluxCoreDenoiser(DenoiserModule):
    """Flux with a path: x_t (B, C, H, W) -> velocity; latent cells are tokens, row by row.

    Condition tokens end in text_spec.ids channels of position ids; without such, token i is at (i,
    0, 0). The target is at cond.target_ids, else at (0, row, column). A network with guidance_embed
    reads `cond.embedded_guidance`, or `training_guidance` where that is None: as in training.
    Raises SpecMismatch for specs and ports that the network does not fit.
    """

    name = "flux_core"
    reads_position_ids = True
    lora_targets = (
        "double_blocks.*.*_attn.qkv",
        "double_blocks.*.*_attn.proj",
        "single_blocks.*.linear1",
        "single_blocks.*.linear2",
    )

    def __init__(
        self,
        params: FluxParams,
        latent_spec: LatentSpec,
        text_spec: TextSpec,
        path: Path,
        training_guidance: float = 1.0,
    ) -> None:
        super().__init__()
        for what, width, expected in (
            ("in_channels", params.in_channels, latent_spec.channels),
            ("out_channels", params.out_channels, latent_spec.channels),
            ("context_in_dim", params.context_in_dim, text_spec.width - text_spec.ids),
            ("vec_in_dim", params.vec_in_dim, text_spec.pooled),
        ):
            if width != expected:
                raise SpecMismatch(
                    f"the network's {what} is {width}, the specification says {expected}",
                    where="FluxCoreDenoiser",
                    cure="build the network from the codec's and the text encoder's specs: "
                    "denoisers.flux_core.build",
                )
        axes = len(params.axes_dim)
        if text_spec.ids not in (0, axes):
            raise SpecMismatch(
                f"position ids have {text_spec.ids} columns, the network {axes} axes "
                f"{list(params.axes_dim)}",
                where="model.axes_dim",
                cure="give one even width for each column, whose sum is hidden_size / num_heads",
            )
        self.latent_spec = latent_spec
        self.text_spec = text_spec
        self.path = path
        self.reads_guidance = params.guidance_embed
        self.training_guidance = float(training_guidance)
        self.net = Flux(params)
        self.stream_width = params.hidden_size

    def block_stack(self) -> tuple[StackBlock, ...]:
        """Its blocks, whose image tokens come last in the streams of both kinds."""
        return (
            *stack_of(self.net.double_blocks, ("img", "txt"), "img", _modulated, selected),
            *stack_of(self.net.single_blocks, ("x",), "x", selected=selected),
        )

    def forward(
        self, x_t: Float[Tensor, "b c h w"], t: Float[Tensor, " b"], cond: Conditioning
    ) -> Prediction:
        """The velocity (B, C, H, W); 0 where the target is padding."""
        self.require_readable(cond)
        txt, txt_ids = self._condition(cond.text.tokens)
        predict = partial(
            self.net,
            x_t.flatten(2).mT,
            self._target_ids(x_t, cond.target_ids),
            txt,
            txt_ids,
            # The network's clock runs from data (0) to noise (1), whatever the path's does.
            progress_toward(self.path, t.float(), "noise"),
            cond.text.pooled,
            self._guidance(t, cond),
            img_mask=cond.target_mask,
            txt_mask=cond.text.mask,
        )
        out = self.guided(predict, cond.hint)
        return Prediction(out.mT.unflatten(2, x_t.shape[2:]))

    def _guidance(self, t: Tensor, cond: Conditioning) -> Tensor | None:
        if not self.reads_guidance:
            return None
        if cond.embedded_guidance is None:
            return torch.full_like(t, self.training_guidance, dtype=torch.float32)
        return cond.embedded_guidance

    def _condition(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Values (B, L, C) and ids (B or 1, L, A) of the condition."""
        if self.text_spec.ids:
            width = self.text_spec.width - self.text_spec.ids
            return tokens[..., :width], tokens[..., width:]
        count = torch.arange(tokens.shape[1], device=tokens.device, dtype=torch.float32)
        return tokens, torch.nn.functional.pad(
            count[None, :, None], (0, len(self.net.params.axes_dim) - 1)
        )

    def _target_ids(self, x_t: Tensor, target_ids: Tensor | None) -> Tensor:
        """Position ids (B or 1, N, A) of the target; row and column by default."""
        if target_ids is not None:
            return target_ids
        axes = len(self.net.params.axes_dim)
        if axes == 1:
            return torch.arange(x_t[0, 0].numel(), device=x_t.device, dtype=torch.float32)[
                None, :, None
            ]
        grid = image_ids(x_t.shape[2], x_t.shape[3], 1, x_t.device)[None, :, 1:]
        return torch.nn.functional.pad(grid, (axes - 2, 0))

    def enable_gradient_checkpointing(self) -> None:
        """Keep only each block's input for the backward pass and compute the rest again."""
        super().enable_gradient_checkpointing()
        self.net.gradient_checkpointing = True

    def config_dict(self) -> dict[str, Any]:
        """Plain JSON data that rebuilds this denoiser, without its path."""
        specs = {"latent_spec": plain(self.latent_spec), "text_spec": plain(self.text_spec)}
        params = self.net.params.to_dict()
        # Only where it is read, so that descriptions of older checkpoints stay what they were.
        guided = {"training_guidance": self.training_guidance} if self.reads_guidance else {}
        return {"params": params, **specs, **guided}

    @classmethod
    def from_config(cls, config: dict[str, Any], path: Path) -> FluxCoreDenoiser:
        """The denoiser that `config_dict` describes, newly initialised."""
        specs = LatentSpec(**config["latent_spec"]), TextSpec(**config["text_spec"])
        return cls(
            FluxParams(**config["params"]), *specs, path, config.get("training_guidance", 1.0)
        )


def _modulated(block: Any, inputs: dict[str, Any]) -> Tensor:
    attention, _ = block.img_mod(inputs["vec"])
    return modulated(inputs["img"], attention.shift, attention.scale)


def build(
    latent_spec: LatentSpec,
    text_spec: TextSpec,
    path: Path,
    *,
    hidden_size: int,
    num_heads: int,
    depth: int,
    depth_single_blocks: int,
    axes_dim: Sequence[int],
    mlp_ratio: float | int = 4.0,
    theta: float | int = 10_000,
    qkv_bias: bool = True,
    guidance_embed: bool = False,
    training_guidance: float = 1.0,
) -> FluxCoreDenoiser:
    """A denoiser whose widths come from the specs; ConfigError for sizes that no network can have.

    `guidance_embed` gives it a guidance input, which is `training_guidance` in training.
    """
    if training_guidance != 1.0 and not guidance_embed:
        cure = "model.guidance_embed=true gives the network an input for it"
        raise ConfigError(
            "nothing reads training_guidance", where="model.training_guidance", cure=cure
        )
    params = FluxParams(
        in_channels=latent_spec.channels,
        out_channels=latent_spec.channels,
        vec_in_dim=text_spec.pooled,
        context_in_dim=text_spec.width - text_spec.ids,
        hidden_size=hidden_size,
        mlp_ratio=mlp_ratio,
        num_heads=num_heads,
        depth=depth,
        depth_single_blocks=depth_single_blocks,
        axes_dim=axes_dim,
        theta=theta,
        qkv_bias=qkv_bias,
        guidance_embed=guidance_embed,
    )
    return FluxCoreDenoiser(params, latent_spec, text_spec, path, training_guidance)
