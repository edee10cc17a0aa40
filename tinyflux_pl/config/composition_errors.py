"""Errors of composing a configuration, converted to errors of this project."""

from __future__ import annotations

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from tinyflux_pl.core.errors import ConfigError

# errors of Hydra, and those that it lets through for unexpected files
COMPOSING = (
    HydraException,
    OmegaConfBaseException,
    YAMLError,
    OSError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    AssertionError,
    RecursionError,
)


def explained(error: Exception) -> ConfigError:
    """An error of Hydra, OmegaConf or YAML as a ConfigError."""
    text = [line.strip() for line in str(error).splitlines() if line.strip()]
    cure = " ".join(text[1:3]) or "see what the configuration holds with --cfg job"
    return ConfigError(
        text[0] if text else type(error).__name__, where="the command line or conf/", cure=cure
    )
