"""The published TinyFlux as a denoiser, with its weights if they are named."""

from __future__ import annotations

from typing import Annotated, Any

import torch

from tinyflux_pl.core import files
from tinyflux_pl.core.errors import SpecMismatch
from tinyflux_pl.core.fields_of import FieldsOf
from tinyflux_pl.core.protocols import Path
from tinyflux_pl.core.specs import LatentSpec, TextSpec
from tinyflux_pl.denoisers.tinyflux import DERIVED, TinyFluxDenoiser
from tinyflux_pl.denoisers.tinyflux_files import published_file, read_safetensors
from tinyflux_pl.denoisers.tinyflux_reference import load_reference
from tinyflux_pl.nets.tinyflux_config import TinyFluxConfig


def build_published(
    latent_spec: LatentSpec,
    text_spec: TextSpec,
    path: Path,
    *,
    weights: str | None = None,
    weights_file: str = "",
    revision: str | None = None,
    lune_dim: int | None = None,
    sol: bool = True,
    num_sol_stats: int = 3,
    sol_size: int | None = None,
    **config: Annotated[Any, FieldsOf(TinyFluxConfig, DERIVED)],
) -> TinyFluxDenoiser:
    """Build the published network (v4.2; v4.1 and v3 by config.json), with weights if named.

    `weights` is a safetensors file, or the folder or repository (with its 40-digit revision) that
    holds `weights_file`; a config.json beside the file says what it is, else `config` does. Loads
    strictly. Experts of a run may fill its ports if their sizes are the published ones:
    SpecMismatch otherwise.
    """
    derived = {
        "in_channels": latent_spec.channels,
        "joint_attention_dim": text_spec.width,
        "pooled_projection_dim": text_spec.pooled,
        "use_sol_prior": sol,
    }
    if lune_dim is not None:
        derived["lune_expert_dim"] = lune_dim
    if sol_size is not None:
        derived["sol_spatial_size"] = sol_size
    if num_sol_stats != 3:
        raise SpecMismatch(
            f"the published networks read 3 of Sol's statistics, not {num_sol_stats}",
            where="experts.sol",
            cure="experts.sol.stats=3, with either clock",
        )
    settings: dict[str, Any] = {**config, **derived}
    file = None if weights is None else published_file(weights, weights_file, revision)
    if file is not None and (config_file := file.parent / "config.json").is_file():
        settings = files.read_object(config_file)
        _require_expert_sizes(TinyFluxConfig.reference(settings), lune_dim, sol_size)
    if file is None or torch.get_default_device().type == "meta":  # a plan reads no weights
        network = TinyFluxConfig.reference(settings)
        return _without_references(TinyFluxDenoiser(network, latent_spec, text_spec, path))
    net = load_reference(settings, read_safetensors(file))
    denoiser = TinyFluxDenoiser(net.config, latent_spec, text_spec, path)
    denoiser.net = net
    denoiser.weight_files = (file,)
    return _without_references(denoiser)


def _without_references(denoiser: TinyFluxDenoiser) -> TinyFluxDenoiser:
    """The same denoiser, which says that its published weights were trained on no references."""
    denoiser.reference_size = None
    return denoiser


def _require_expert_sizes(
    published: TinyFluxConfig, lune_dim: int | None, sol_size: int | None
) -> None:
    """SpecMismatch unless the experts of a run, if any, have the sizes of the weights."""
    for key, size, expected in (
        ("teacher.width", lune_dim, published.lune_expert_dim),
        ("experts.sol.size", sol_size, published.sol_spatial_size),
    ):
        if size not in (None, expected):
            what = f"the published network reads a size of {expected}, the expert has {size}"
            raise SpecMismatch(what, where=key, cure=f"{key}={expected}, or experts=none")
