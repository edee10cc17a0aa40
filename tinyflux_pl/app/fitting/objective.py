"""The training objective of a run, or of a step that is computed again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from tinyflux_pl.config.build import build

if TYPE_CHECKING:
    from tinyflux_pl.config.schema import DataJob
    from tinyflux_pl.core.protocols import Expert, Objective
    from tinyflux_pl.core.types import TextEmbeddings
    from tinyflux_pl.objectives.teacher_target import TeacherTargets
    from tinyflux_pl.techniques.technique import Technique


def objective_of(
    config: DataJob,
    null_text: TextEmbeddings | None,
    experts: Iterable[Expert],
    velocity_targets: TeacherTargets | None = None,
    techniques: Mapping[str, Technique] | None = None,
) -> Objective:
    """The objective that a run's configuration describes."""

    def part(group: str, **objects: Any) -> Any:
        return build(getattr(config, group), group, **objects)

    return build_objective(part, null_text, experts, velocity_targets, techniques)


def build_objective(
    build_group: Callable[..., Any],
    null_text: TextEmbeddings | None,
    experts: Iterable[Expert],
    velocity_targets: TeacherTargets | None = None,
    techniques: Mapping[str, Technique] | None = None,
) -> Objective:
    """Build the objective with its timestep distribution.

    `build_group(group, **objects)` builds a node of the configuration.
    """
    timesteps = build_group("timesteps")
    parts: dict[str, Any] = {
        "timesteps": timesteps,
        "null_text": null_text,
        "experts": list(experts),
    }
    if techniques:
        parts["techniques"] = techniques
    if velocity_targets is not None:
        parts["velocity_targets"] = velocity_targets
    return build_group("objective", **parts)
