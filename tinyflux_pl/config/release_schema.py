"""Keys of the node `release`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from tinyflux_pl.config.bind import Keys
from tinyflux_pl.config.callback_schema import Count
from tinyflux_pl.config.data_schema import Node, Text


@dataclass(frozen=True)
class Release(Keys):
    """A published pipeline: the paths of its other parts, and its timestep spacing and shift.

    `references`: reference pictures beside each one that its network was trained on; None: unknown.
    """

    spacing: Text
    dynamic_shift: Text
    weights: str | None = None
    revision: str | None = None
    variant: str | None = None
    references: Count | None = None
    scheduler: Node = dataclasses.field(default_factory=dict)
