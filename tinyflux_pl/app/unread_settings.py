"""Settings that a run's method and objective do not read: refused instead of ignored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

from tinyflux_pl.config import dependent_keys
from tinyflux_pl.config.schema import DataJob, Generate, Train
from tinyflux_pl.core.errors import ConfigError

if TYPE_CHECKING:
    from tinyflux_pl.core.record import Records
    from tinyflux_pl.methods.method import Method
    from tinyflux_pl.sampling.loop import SamplerSettings

MASK_WEIGHTS = ("objective.foreground", "objective.background")


def check(config: DataJob, method: Method, objective: Mapping[str, str]) -> None:
    """Raise ConfigError for a key of the command line that nothing reads in this run.

    `objective`: the keys that the objective does not read, with the reasons. Choices that a model
    or an experiment makes for all runs alike are left unread.
    """
    readers = {f"method={method.name}": method.unread, "the objective": objective}
    for key in _keys_of_line(config):
        for reader, unread in readers.items():
            for name, reason in unread.items():
                if key == name or key.startswith(f"{name}."):
                    what = f"{reader} does not read {key}: {reason}"
                    raise ConfigError(what, where=key, cure="leave it out")


def check_sampling(config: Train | Generate, settings: SamplerSettings) -> None:
    """Raise ConfigError for a key of sampler or guidance that these settings do not read.

    Of a picture that is drawn again the line is its own, and stays.
    """
    if isinstance(config, Generate) and config.from_image is not None:
        return
    values, defaults = asdict(settings), asdict(type(settings)())
    for node in ("guidance", "sampler"):
        pair = [each["guidance"] if node == "guidance" else each for each in (values, defaults)]
        dependent_keys.check(config.overrides, node, *pair)


def check_drawing(config: Generate) -> None:
    """Raise ConfigError for a key of step cache or engine that other keys disable."""
    if config.from_image is None:
        for node in ("cache", "engine"):
            dependent_keys.check(config.overrides, node, asdict(getattr(config, node)), {})


def check_masks(config: DataJob, method: Method, records: Mapping[str, Records]) -> None:
    """Raise ConfigError for masks of a user's pictures, or weights of masks, that are not read.

    `records` are the training records of each source.
    """
    masked = [name for name, each in records.items() if len(each) and each[0].mask is not None]
    if method.masks_unread:
        for name in masked:
            if records[name].reads_files:
                raise ConfigError(
                    f"method={method.name} does not read masks: {method.masks_unread}",
                    where=f"data.sources.{name}",
                    cure="remove the files NAME.mask.png, or another method=",
                )
        return
    weights = [key for key in _keys_of_line(config) if key in MASK_WEIGHTS]
    if weights and not masked:
        raise ConfigError(
            f"the pictures have no masks, which {weights[0]} weighs",
            where=weights[0],
            cure="leave it out, or put NAME.mask.png beside each picture",
        )


def _keys_of_line(config: DataJob) -> list[str]:
    """Keys that the command line sets; groups without their package."""
    keys = (line.lstrip("+~").partition("=")[0] for line in config.overrides)
    return [key.partition("@")[0] for key in keys]
