"""The published TinyFlux as a denoiser, with its weights if they are named."""

from __future__ import annotations

from pathlib import Path as FilePath
from typing import Annotated, Any

import torch
from torch import Tensor

from tinyflux_pl.core import files
from tinyflux_pl.core.errors import HubError, SpecMismatch
from tinyflux_pl.core.fields_of import FieldsOf
from tinyflux_pl.core.protocols import Path
from tinyflux_pl.core.specs import LatentSpec, TextSpec
from tinyflux_pl.denoisers.tinyflux import DERIVED, TinyFluxDenoiser
from tinyflux_pl.denoisers.tinyflux_reference import load_reference
from tinyflux_pl.nets.tinyflux_config import TinyFluxConfig
from tinyflux_pl.weights import hub
from tinyflux_pl.weights.dequantize import plain


def build_published(
    latent_spec: LatentSpec,
    text_spec: TextSpec,
    path: Path,
    *,
    weights: str | None = None,
    weights_file: str = "",
    revision: str | None = None,
    lune_dim: int = 1280,
    sol: bool = True,
    num_sol_stats: int = 3,
    **config: Annotated[Any, FieldsOf(TinyFluxConfig, DERIVED)],
) -> TinyFluxDenoiser:
    """The published layout and mathematics (v4.2; v4.1 and v3 by their config.json), with its
    weights if named.

    `weights` is a safetensors file, or the folder or repository (with its 40-digit revision) that
    holds `weights_file`; a config.json beside the file says what it is, else `config` does. Loads
    strictly. Experts of a run may fill its ports if their sizes are the published ones:
    SpecMismatch otherwise.
    """
    derived = {
        "in_channels": latent_spec.channels,
        "joint_attention_dim": text_spec.width,
        "pooled_projection_dim": text_spec.pooled,
        "lune_expert_dim": lune_dim,
        "use_sol_prior": sol,
    }
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
    if file is None or torch.get_default_device().type == "meta":  # a plan reads no weights
        return TinyFluxDenoiser(TinyFluxConfig.reference(settings), latent_spec, text_spec, path)
    net = load_reference(settings, read_safetensors(file))
    denoiser = TinyFluxDenoiser(net.config, latent_spec, text_spec, path)
    denoiser.net = net
    denoiser.weight_files = (file,)
    return denoiser


def published_file(weights: str, weights_file: str = "", revision: str | None = None) -> FilePath:
    """The safetensors file that `weights` names: itself, or `weights_file` in a folder or a pinned
    repository.
    """
    allow = [weights_file, "config.json"] if weights_file else None
    path = hub.resolve(weights, revision, allow) if allow else hub.resolve(weights, revision)
    file = path / weights_file if path.is_dir() else path
    if not file.is_file() or file.suffix != ".safetensors":
        raise HubError(
            f"not a safetensors file: {file.name}",
            where=str(path),
            cure="name the file: model.weights=FILE.safetensors, or model.weights_file=NAME within "
            "the folder",
        )
    return file


def read_safetensors(file: FilePath) -> dict[str, Tensor]:
    """A file's tensors in fp32; CorruptCheckpoint if it is torn or something else, UntrustedFile
    for a pickle.

    Tensors packed with scales are dequantized, or refused with CheckpointMismatch
    (weights.dequantize).
    """
    return {
        key: value.float()
        for key, value in plain(files.read_tensors(file), torch.float32, str(file)).items()
    }
