"""Denoisers by name, for saved models: the file denoisers/NAME.py holds the class named NAME."""

from __future__ import annotations

import pkgutil
import re
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path as FilePath
from typing import Any

from torch import nn

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.nearest_name import did_you_mean
from tinyflux_pl.core.protocols import Path

PACKAGE = "tinyflux_pl.denoisers"
# files that build a denoiser of another file
BUILDERS = {"tinyflux_published": "tinyflux"}
# choices of model= that the messages of every denoiser recommend
WITH_REFERENCES = "flux1_kontext, flux2_dev, flux3 or tiny"
WITH_INPAINTING = "flux1_fill"


def denoiser_names() -> tuple[str, ...]:
    """The files of this package that define a denoiser of their own name, in alphabetical order."""
    folders = import_module(PACKAGE).__path__
    return tuple(sorted(m.name for m in pkgutil.iter_modules(folders) if _declares(m.name)))


def denoiser_class(name: str) -> Any:
    """The class `name`; ConfigError with the nearest name if there is none.

    `name` may come from a file: nothing is imported but a file of this package that declares it.
    """
    names = denoiser_names()
    if name not in names:
        cure = did_you_mean(name, names, f"choose {', '.join(names)}")
        raise ConfigError(f"no denoiser {name!r}", where="denoisers.registry", cure=cure)
    module = import_module(f"{PACKAGE}.{name}")
    classes = (value for value in vars(module).values() if isinstance(value, type))
    return next(
        c for c in classes if c.__module__ == module.__name__ and vars(c).get("name") == name
    )


def class_of_builder(builder: Any) -> Any:
    """The denoiser class beside a function that builds it; ConfigError for a stranger."""
    file = builder.__module__.removeprefix(f"{PACKAGE}.")
    return denoiser_class(BUILDERS.get(file, file))


def build_denoiser(name: str, config: dict[str, Any], path: Path) -> nn.Module:
    """The denoiser that `denoiser.config_dict()` described, newly initialised, on `path`."""
    return denoiser_class(name).from_config(config, path)


@cache
def _declares(name: str) -> bool:
    """True if the module has `name = "NAME"` in a class; the source is read, not imported."""
    spec = find_spec(f"{PACKAGE}.{name}")
    if spec is None or spec.origin is None:
        return False
    text = FilePath(spec.origin).read_text(encoding="utf-8")
    return re.search(rf'^    name = "{re.escape(name)}"$', text, re.MULTILINE) is not None
