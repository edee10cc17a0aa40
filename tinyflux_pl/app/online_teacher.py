"""The teacher that predicts in every training step: pathway=online."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tinyflux_pl.app import pathway, teachers
from tinyflux_pl.config.schema import DataJob
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.engine import memory_plan

if TYPE_CHECKING:
    from tinyflux_pl.core.protocols import Codec, TextEncoder
    from tinyflux_pl.core.target_expert import TargetExpert
    from tinyflux_pl.experts.teacher import Teacher
    from tinyflux_pl.methods.method import Method
    from tinyflux_pl.objectives.teacher_target import TeacherTargets


def load(config: DataJob, codec: Codec, text: TextEncoder) -> Teacher | None:
    """The run's teacher, its weights still unread; None on other pathways, and without experts.

    Raises ConfigError or SpecMismatch unless it reads the student's own latents and text.
    """
    if config.pathway.online is None or not config.experts:
        return None
    from tinyflux_pl.experts.velocity import require_same_latents

    (name,) = config.experts
    teacher = teachers.load(config, name)
    require_same_latents(teacher, codec)
    if teacher.text.fingerprint() != text.fingerprint():
        raise ConfigError(
            f"the teacher {name!r} reads text={teacher.text.name} with other settings or another "
            "encoder than the student, whose embeddings it is shown",
            where="text",
            cure="text= and its settings as the teacher has them, or pathway=velocity",
        )
    return teacher


def velocities(
    config: DataJob, cached: Mapping[str, TargetExpert], online: Teacher | None
) -> TeacherTargets | None:
    """The teachers' velocities as targets of a run: cached, or of a teacher in the step."""
    if config.pathway.online is None or online is None:
        return pathway.velocity_targets(config.pathway, cached.values(), config.seed)
    from tinyflux_pl.objectives.online_targets import OnlineTargets

    listed = [node.experts for node in config.data.sources.values()]
    (expert,) = config.experts
    taught = [k for k, names in enumerate(listed) if names is None or expert in names]
    settings = config.pathway.online.plain
    return OnlineTargets(online.on, **settings, seed=config.seed, sources=taught)


def resident_bytes(method: Method, online: Teacher | None) -> int:
    """Bytes of the frozen network beside the student: the method's teacher, or one in the step."""
    network = method.teacher if online is None else online.network
    return memory_plan.weight_bytes(network)
