"""An autoencoder of diffusers on the meta device, from its config.json."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.unused_settings import name_unread


def skeleton_of(kind: str, config: dict[str, Any], where: str) -> nn.Module:
    """The class `kind` of diffusers on the meta device; prints settings that it does not read.

    ConfigError, about `where`, if the settings describe no such network.
    """
    import diffusers

    target = getattr(diffusers, kind)
    parameters = inspect.signature(target.__init__).parameters
    settings = {key: value for key, value in config.items() if not key.startswith("_")}
    name_unread(settings.keys() - parameters.keys(), f"config.json of {where}")
    try:
        with torch.device("meta"):
            return target(**{key: value for key, value in settings.items() if key in parameters})
    except (
        TypeError,
        ValueError,
        LookupError,
        AttributeError,
        ZeroDivisionError,
        RuntimeError,
    ) as error:
        what = f"not the structure of an {kind}: {str(error)[:200]}"
        cure = "use config.json and weights of one release, or check codec.structure"
        raise ConfigError(what, where=where, cure=cure) from error
