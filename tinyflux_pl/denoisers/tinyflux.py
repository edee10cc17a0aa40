"""TinyFlux as a denoiser: velocity and the heads' predictions from latents and conditioning."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from pathlib import Path as FilePath
from typing import Annotated, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tinyflux_pl.core.block_stack import StackBlock, stack_of
from tinyflux_pl.core.divisible_inputs import DivisibleInput
from tinyflux_pl.core.errors import ConfigError, SpecMismatch
from tinyflux_pl.core.fields_of import FieldsOf
from tinyflux_pl.core.protocols import Path
from tinyflux_pl.core.specs import LatentSpec, TextSpec, plain
from tinyflux_pl.core.types import Conditioning, Prediction
from tinyflux_pl.denoisers.denoiser import DenoiserModule
from tinyflux_pl.denoisers.packing import inpaint_channels, joined_pictures, patchify, unpatchify
from tinyflux_pl.denoisers.tinyflux_diffusers import write_folder
from tinyflux_pl.denoisers.tinyflux_files import released_network
from tinyflux_pl.denoisers.tinyflux_inputs import divisible_inputs, modulated
from tinyflux_pl.denoisers.tinyflux_reference import load_reference, to_reference_keys
from tinyflux_pl.denoisers.token_selection import selected
from tinyflux_pl.diffusion.paths import progress_toward
from tinyflux_pl.nets.tinyflux import TinyFluxDeep
from tinyflux_pl.nets.tinyflux_config import TinyFluxConfig

# keys that follow from the specs and from the experts of the run
DERIVED = (
    "in_channels",
    "joint_attention_dim",
    "pooled_projection_dim",
    "use_lune_expert",
    "lune_expert_dim",
    "use_sol_prior",
    "sol_spatial_size",
    "inpaint_channels",
    "ports",
)

__all__ = ["TinyFluxDenoiser", "build", "load_reference", "to_reference_keys"]


class TinyFluxDenoiser(DenoiserModule):
    """TinyFlux with a path: x_t (B, C, H, W) and t (B,) in the path's time -> velocity.

    Ports: vec (B, E) for the conditioning vector, prior_stats (B, S) and prior_map (B, S8, S8; sums
    to 1) for attention; further ones by config.ports (nets.expert_ports). The heads predict under
    the same names; prior_map then has mean 1 (sol_map "density"). `cond.references` join the
    sequence as in FLUX.1 Kontext; `cond.inpaint` is read where the network has inpaint_channels.
    Raises SpecMismatch for specs that the network does not fit.
    """

    name = "tinyflux"
    reads_references = True
    reference_size = "as_is"
    lora_targets = (
        "double_blocks.*.attn.*_qkv",
        "double_blocks.*.attn.*_out",
        "single_blocks.*.attn.qkv",
        "single_blocks.*.attn.out_proj",
        "single_blocks.*.mlp.fc1",
        "single_blocks.*.mlp.fc2",
    )
    layouts = ("diffusers",)

    def __init__(
        self, config: TinyFluxConfig, latent_spec: LatentSpec, text_spec: TextSpec, path: Path
    ) -> None:
        super().__init__()
        for what, width, expected in (
            ("latent channels", config.in_channels, latent_spec.channels),
            ("text width", config.joint_attention_dim, text_spec.width),
            ("pooled text width", config.pooled_projection_dim, text_spec.pooled),
        ):
            if width != expected:
                difference = f"the network's {what} is {width}, the specification says {expected}"
                cure = "build it from the specs of codec and text encoder: denoisers.tinyflux.build"
                raise SpecMismatch(difference, where="TinyFluxDenoiser", cure=cure)
        self.config, self.path = config, path
        self.latent_spec, self.text_spec = latent_spec, text_spec
        self.net = TinyFluxDeep(config)
        sol = ("prior_stats", "prior_map") if config.use_sol_prior else ()
        self.ports = (("vec",) if config.use_lune_expert else ()) + sol + tuple(config.ports)
        self.patch_size, self.inpaint_channels = config.patch_size, config.inpaint_channels
        self.reads_guidance = config.guidance_embeds
        self.stream_width = config.hidden_size

    def write_as(self, layout: str, folder: FilePath) -> nn.Module:
        """A diffusers-style folder: transformer/ with config.json and safetensors."""
        return write_folder(self.net, folder / self.component)

    def port_gates(self) -> dict[str, Tensor]:
        """`vec`, `prior` (the share of the fixed prior in Sol's) and the further vector ports."""
        gates = self.net.ports.gates() if self.config.ports else {}
        if self.config.use_lune_expert:
            gates["vec"] = torch.sigmoid(self.net.lune_predictor.expert_gate)
        if self.config.use_sol_prior:
            gates["prior"] = torch.sigmoid(self.net.sol_prior.blend_gate)
        return gates

    def with_inpaint(self) -> TinyFluxDenoiser:
        """A copy with an inpainting input whose weights are zero, so that it predicts as before.

        In the same mode, dtype and device; ConfigError if it inpaints already.
        """
        if self.inpaint_channels:
            where = "TinyFluxDenoiser.with_inpaint"
            raise ConfigError("it inpaints already", where=where, cure="use it as it is")
        channels = inpaint_channels(self.latent_spec)
        config = dataclasses.replace(self.config, inpaint_channels=channels)
        copy = TinyFluxDenoiser(config, self.latent_spec, self.text_spec, self.path).to(
            self.net.img_in.weight
        )
        new = copy.state_dict()["net.inpaint_in.weight"]
        copy.load_state_dict({**self.state_dict(), "net.inpaint_in.weight": new})
        copy.net.gradient_checkpointing = self.net.gradient_checkpointing
        return copy.train(self.training)

    @classmethod
    def shrunk(
        cls, node: dict[str, Any], latent_spec: LatentSpec, text_spec: TextSpec
    ) -> dict[str, Any]:
        """Two blocks of each kind, two heads of 16 channels; no file of a published layout."""
        small = {
            "hidden_size": 32,
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "axes_dims_rope": [4, 6, 6],
            "num_double_layers": 2,
            "num_single_layers": 2,
        }
        return {**node, **small, **({"weights": None} if "weights" in node else {})}

    def block_stack(self) -> tuple[StackBlock, ...]:
        """Its blocks, whose image tokens come last in the streams of both kinds."""
        return (
            *stack_of(self.net.double_blocks, ("txt", "img"), "img", modulated, selected),
            *stack_of(self.net.single_blocks, ("x",), "x", selected=selected),
        )

    def divisible_inputs(self) -> tuple[DivisibleInput, ...]:
        return divisible_inputs(self.net)

    def forward(
        self, x_t: Float[Tensor, "b c h w"], t: Float[Tensor, " b"], cond: Conditioning
    ) -> Prediction:
        """The velocity (B, C, H, W), and under `heads` what each port's own head predicts."""
        self.require_readable(cond)
        height, width, patch = *x_t.shape[-2:], self.patch_size
        joined, ids = joined_pictures([x_t, *cond.references], patch)
        predict = partial(
            self.net,
            joined,
            cond.text.tokens,
            cond.text.pooled,
            # The network's clock runs from noise (0) to data (1), whatever the path's does.
            progress_toward(self.path, t.float(), "data"),
            img_ids=ids,
            inpaint=None if cond.inpaint is None else patchify(cond.inpaint, patch),
            reference_tokens=joined.shape[1] - height * width // patch**2,
            lune_features=cond.ports.get("vec"),
            sol_stats=cond.ports.get("prior_stats"),
            sol_spatial=cond.ports.get("prior_map"),
            guidance=cond.embedded_guidance,
            encoder_attention_mask=cond.text.mask,
            lune_mask=cond.port_mask.get("vec"),
            sol_mask=cond.port_mask.get("prior_map", cond.port_mask.get("prior_stats")),
            ports=cond.ports,
            port_masks=cond.port_mask,
            return_expert_pred=True,
        )
        tokens, info = self.guided(predict, cond.hint)
        heads = {}
        if info["lune"] is not None:
            heads["vec"] = info["lune"]["pred"]
        if info["sol"] is not None:
            heads |= {
                "prior_stats": info["sol"]["stats_pred"],
                "prior_map": info["sol"]["spatial_pred"],
            }
        return Prediction(unpatchify(tokens, patch, height, width), heads | info.get("ports", {}))

    def enable_gradient_checkpointing(self) -> None:
        """Keep only each block's input for the backward pass and compute the rest again."""
        super().enable_gradient_checkpointing()
        self.net.gradient_checkpointing = True

    def config_dict(self) -> dict[str, Any]:
        """Plain JSON data that rebuilds this denoiser, without its path."""
        specs = {"latent_spec": plain(self.latent_spec), "text_spec": plain(self.text_spec)}
        return {"config": self.config.to_dict(), **specs}

    @classmethod
    def from_config(cls, config: dict[str, Any], path: Path) -> TinyFluxDenoiser:
        """The denoiser that `config_dict` describes, newly initialised."""
        return cls(TinyFluxConfig.from_dict(config["config"]), *_specs(config), path)

    @classmethod
    def from_released(
        cls, config: dict[str, Any], path: Path, source: Mapping[str, Any]
    ) -> TinyFluxDenoiser:
        """The denoiser that `config_dict` described, with the published weights at `source`."""
        net, file = released_network(config["config"], source)
        denoiser = cls(net.config, *_specs(config), path)
        denoiser.net, denoiser.weight_files = net, (file,)
        return denoiser


def _specs(config: dict[str, Any]) -> tuple[LatentSpec, TextSpec]:
    return LatentSpec(**config["latent_spec"]), TextSpec(**config["text_spec"])


def build(
    latent_spec: LatentSpec,
    text_spec: TextSpec,
    path: Path,
    *,
    lune_dim: int | None = None,
    sol: bool = False,
    num_sol_stats: int = 4,
    sol_size: int = 8,
    ports: Mapping[str, Mapping[str, Any]] | None = None,
    inpaint: bool = False,
    **config: Annotated[Any, FieldsOf(TinyFluxConfig, DERIVED)],
) -> TinyFluxDenoiser:
    """Build a denoiser with widths from the specs and ports from the experts present.

    `inpaint` gives it an input for a masked picture (codecs.inpaint_mask), whose weights begin
    at zero. ConfigError for unknown keys.
    """
    derived = {
        "in_channels": latent_spec.channels,
        "joint_attention_dim": text_spec.width,
        "pooled_projection_dim": text_spec.pooled,
        "use_lune_expert": lune_dim is not None,
        "use_sol_prior": sol,
        "sol_spatial_size": sol_size,
        "inpaint_channels": inpaint_channels(latent_spec) if inpaint else 0,
        "ports": dict(ports or {}),
    }
    if lune_dim is not None:
        derived["lune_expert_dim"] = lune_dim
    network = TinyFluxConfig.from_dict({**config, **derived, "num_sol_stats": num_sol_stats})
    return TinyFluxDenoiser(network, latent_spec, text_spec, path)
