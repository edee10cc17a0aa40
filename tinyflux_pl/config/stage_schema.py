"""The keys of stages.*: a run that is several runs of train.py, one after the other."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated, Literal

from tinyflux_pl.config.bind import Keys, NotEmpty
from tinyflux_pl.config.callback_schema import require_logged
from tinyflux_pl.core.errors import ConfigError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")  # a folder's


@dataclass(frozen=True)
class Until(Keys):
    """Keys of stages.NAME.until: the value of a logged metric at which the next stage begins."""

    metric: Annotated[str, NotEmpty()]
    mode: Literal["min", "max"]
    threshold: float

    def __post_init__(self) -> None:
        super().__post_init__()
        require_logged(self.metric, "metric")


@dataclass(frozen=True)
class Stage(Keys):
    """Keys of stages.NAME.

    The words that train.py is given, the keys that name earlier stages' runs, and what ends the
    stage before its steps.
    """

    overrides: list[str]
    link: dict[str, str] = field(default_factory=dict)
    until: Until | None = None


def check_order(stages: dict[str, Stage]) -> None:
    """Raise ConfigError for a name that is no folder's, or a link to no earlier stage."""
    earlier: list[str] = []
    for name, stage in stages.items():
        where = f"stages.{name}"
        if not NAME.fullmatch(name):
            raise ConfigError(
                f"{name!r} is no name of a stage", where=where, cure="letters, digits, _ and -"
            )
        for key, source in stage.link.items():
            if source not in earlier:
                cure = f"name one of {', '.join(earlier)}" if earlier else "leave link out"
                what = f"there is no stage {source!r} before it"
                raise ConfigError(what, where=f"{where}.link.{key}", cure=cure)
        earlier.append(name)
