"""The teacher that predicts in every training step (pathway=online)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tinyflux_pl.app.experts import pathway, teachers
from tinyflux_pl.config.schema import DataJob
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.fingerprint import hash_json
from tinyflux_pl.engine import memory_plan

if TYPE_CHECKING:
    from torch import nn

    from tinyflux_pl.core.protocols import Codec, TextEncoder
    from tinyflux_pl.core.target_expert import TargetExpert
    from tinyflux_pl.experts.teacher import Teacher
    from tinyflux_pl.methods.method import Method
    from tinyflux_pl.objectives.teacher_target import TeacherTargets


class PartsWithTeacher(Protocol):
    """The parts of a run (app.components) that determine its teachers' velocities."""

    config: Any
    targets: dict[str, TargetExpert]

    @property
    def method(self) -> Method: ...
    @property
    def online_teacher(self) -> Teacher | None: ...


def load(config: DataJob, codec: Codec, text: TextEncoder) -> Teacher | None:
    """The run's teacher, weights not read yet; None without experts and on other pathways.

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


def velocities(parts: PartsWithTeacher) -> TeacherTargets | None:
    """The teachers' velocities as targets of a run: cached, or of a teacher in the step.

    Of a teacher in the step after `parts.student`.
    """
    config, online = parts.config, parts.online_teacher
    if config.pathway.online is None or online is None:
        return pathway.velocity_targets(config.pathway, parts.targets.values(), config.seed)
    from tinyflux_pl.methods.peft_layers import switched_off
    from tinyflux_pl.objectives.online_targets import OnlineTargets

    listed = [node.experts for node in config.data.sources.values()]
    (expert,) = config.experts
    taught = [k for k, names in enumerate(listed) if names is None or expert in names]
    settings: dict[str, Any] = {
        **config.pathway.online.plain,
        "seed": config.seed,
        "sources": taught,
    }
    base = shared_teacher_base(parts)
    if base is None:
        return OnlineTargets(online.on, **settings)
    # a compiled network is compiled anew for each number of rows
    fixed_shapes = bool(config.hardware.compile)
    return OnlineTargets(lambda _: switched_off(base), **settings, fixed_shapes=fixed_shapes)


def shared_teacher_base(parts: PartsWithTeacher) -> nn.Module | None:
    """The prepared network, if its frozen base has exactly the teacher's weights; else None.

    None where that has another content, structure, path or number format, and where the base is
    packed: the teacher is a network of its own then.
    """
    network: Any = parts.method.adapted()
    online = parts.online_teacher
    if network is None or online is None or parts.method.base_precision is not None:
        return None
    if online.weights != _base_identity(parts.config.init, network):
        return None
    teacher = online.network
    same = (teacher.name, teacher.path) == (network.name, network.path)
    same = same and hash_json(teacher.config_dict()) == hash_json(network.config_dict())
    return network if same else None


def _base_identity(init: str | None, network: Any) -> str | None:
    from tinyflux_pl.experts import released_teacher
    from tinyflux_pl.inference import checkpoint_teacher

    if init is None:
        files = network.weight_files
        return released_teacher.identity(files) if files else None
    folder = Path(init).expanduser()
    if not folder.is_dir():
        return None
    return checkpoint_teacher.averaged(checkpoint_teacher.open_cached(folder))


def require_weights(parts: PartsWithTeacher) -> None:
    """Read the weights of the teacher in the step now: it may teach for the first time much later.

    After `parts.student`; nothing is read where the student's own base teaches. Raises as reading
    them does (CorruptCheckpoint, CheckpointMismatch), NumericsError for NaN and infinity.
    """
    from tinyflux_pl.core.finite import require_finite_weights

    online = parts.online_teacher
    if online is not None and shared_teacher_base(parts) is None:
        require_finite_weights(online.denoiser, f"the teacher {online.name}")


def resident_bytes(parts: PartsWithTeacher) -> int:
    """Bytes of the frozen network beside the student: the method's teacher, or the online one.

    After `parts.student`; none where the student's own base teaches.
    """
    online = parts.online_teacher
    if online is not None and shared_teacher_base(parts) is not None:
        return 0
    return memory_plan.weight_bytes(parts.method.teacher if online is None else online.network)
