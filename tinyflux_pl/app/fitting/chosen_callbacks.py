"""The callbacks that a configuration adds to a run's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinyflux_pl.config.build import build
from tinyflux_pl.config.callback_schema import Callbacks
from tinyflux_pl.core.errors import ConfigError

if TYPE_CHECKING:
    from lightning.pytorch import Callback


def chosen_callbacks(keys: Callbacks) -> list[Callback]:
    """Early stopping and the classes of callbacks.extra; ConfigError for any other class.

    Building them has no effect, so that a check may do it before a run takes time.
    """
    from lightning.pytorch import Callback

    from tinyflux_pl.training.callbacks.early_stopping import EarlyStopping

    chosen: list[Callback] = []
    if keys.early_stopping is not None:
        chosen.append(EarlyStopping(**keys.early_stopping.plain))
    for index, node in enumerate(keys.extra):
        where = f"callbacks.extra.{index}"
        callback = build(node, where)
        if not isinstance(callback, Callback):
            raise ConfigError(
                f"{node['_target_']} is not a callback",
                where=where,
                cure="name a callback of Lightning or of tinyflux_pl/training/callbacks",
            )
        chosen.append(callback)
    return chosen
