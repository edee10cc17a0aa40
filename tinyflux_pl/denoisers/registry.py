"""Denoisers by name, for saved models; a module is imported when its denoiser is built."""

from __future__ import annotations

import difflib
from importlib import import_module
from typing import Any

from torch import nn

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.protocols import Path

DENOISERS = {
    "flux1": "tinyflux_pl.denoisers.flux1:Flux1Denoiser",
    "flux2": "tinyflux_pl.denoisers.flux2:Flux2Denoiser",
    "flux3": "tinyflux_pl.denoisers.flux3:Flux3Denoiser",
    "flux_core": "tinyflux_pl.denoisers.flux_core:FluxCoreDenoiser",
    "sd3": "tinyflux_pl.denoisers.sd3:SD3Denoiser",
    "sdxl": "tinyflux_pl.denoisers.sdxl:SDXLDenoiser",
    "tinyflux": "tinyflux_pl.denoisers.tinyflux:TinyFluxDenoiser",
    "unet": "tinyflux_pl.denoisers.unet:UNetDenoiser",
}
# choices of model= that the messages of every denoiser recommend
WITH_REFERENCES = "flux1_kontext, flux2_dev, flux3 or tiny"
WITH_INPAINTING = "flux1_fill"


def denoiser_class(name: str) -> Any:
    """The class registered under `name`; ConfigError with the nearest name if there is none."""
    if name not in DENOISERS:
        near = difflib.get_close_matches(name, DENOISERS, n=1)
        cure = f"did you mean {near[0]!r}?" if near else f"choose {', '.join(sorted(DENOISERS))}"
        raise ConfigError(f"no denoiser {name!r}", where="denoisers.registry", cure=cure)
    module, _, attribute = DENOISERS[name].partition(":")
    return getattr(import_module(module), attribute)


def build_denoiser(name: str, config: dict[str, Any], path: Path) -> nn.Module:
    """The denoiser that `denoiser.config_dict()` described, newly initialised, on `path`."""
    return denoiser_class(name).from_config(config, path)
