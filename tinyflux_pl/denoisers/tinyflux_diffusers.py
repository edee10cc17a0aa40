"""TinyFlux as a model of diffusers, which its own functions write and read."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from tinyflux_pl.nets.tinyflux import TinyFluxDeep
from tinyflux_pl.nets.tinyflux_config import TinyFluxConfig


@lru_cache(1)
def tinyflux_model() -> Any:
    """The class TinyFluxModel of diffusers' ModelMixin around the network, under its own keys.

    `tinyflux_model().from_pretrained(FOLDER, subfolder="transformer")` reads an export.
    """
    from diffusers.configuration_utils import ConfigMixin, register_to_config
    from diffusers.models.modeling_utils import ModelMixin

    class TinyFluxModel(ModelMixin, ConfigMixin):
        """The network `net`; `network` is its configuration as plain data."""

        @register_to_config
        def __init__(self, network: dict[str, Any]) -> None:
            super().__init__()
            self.net = TinyFluxDeep(TinyFluxConfig.from_dict(network))

        def forward(self, *args: Any, **inputs: Any) -> Any:
            return self.net(*args, **inputs)

    return TinyFluxModel


def write_folder(net: TinyFluxDeep, folder: Path) -> TinyFluxDeep:
    """Write `folder` as a model of diffusers; returns the network as diffusers reads it back."""
    kind = tinyflux_model()
    with torch.device("meta"):
        model = kind(net.config.to_dict())
    model.net = net
    model.save_pretrained(folder, safe_serialization=True)
    return kind.from_pretrained(folder, use_safetensors=True, local_files_only=True).net
