"""The training objective of a run, or of a step that is computed again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinyflux_pl.core.protocols import Expert, Objective
    from tinyflux_pl.core.types import TextEmbeddings


def build_objective(
    build_group: Callable[..., Any], null_text: TextEmbeddings | None, experts: Iterable[Expert]
) -> Objective:
    """The objective with its timestep distribution; `build_group(group, **objects)` builds a
    node.
    """
    timesteps = build_group("timesteps")
    return build_group("objective", timesteps=timesteps, null_text=null_text, experts=list(experts))
