"""The training objective of a run, or of a step that is computed again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinyflux_pl.core.protocols import Expert, Objective
    from tinyflux_pl.core.types import TextEmbeddings
    from tinyflux_pl.objectives.teacher_target import TeacherTargets


def build_objective(
    build_group: Callable[..., Any],
    null_text: TextEmbeddings | None,
    experts: Iterable[Expert],
    velocity_targets: TeacherTargets | None = None,
) -> Objective:
    """Build the objective with its timestep distribution.

    `build_group(group, **objects)` builds a node of the configuration.
    """
    timesteps = build_group("timesteps")
    parts = {"timesteps": timesteps, "null_text": null_text, "experts": list(experts)}
    if velocity_targets is not None:
        parts["velocity_targets"] = velocity_targets
    return build_group("objective", **parts)
