"""The pathways from the teachers of a run to its student: ports, and regression targets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from tinyflux_pl.config.build import build
from tinyflux_pl.config.pathway_schema import Pathway
from tinyflux_pl.config.schema import DataJob, Train
from tinyflux_pl.core.errors import ConfigError

if TYPE_CHECKING:
    from tinyflux_pl.core.protocols import Expert
    from tinyflux_pl.core.target_expert import TargetExpert
    from tinyflux_pl.objectives.velocity_targets import VelocityTargets

MATCHED = "matched"


def name(config: DataJob) -> str:
    """The choice: ports, velocity, both, online or none."""
    if config.pathway.online is not None:
        return "online"
    ports, velocity = config.pathway.ports, config.pathway.velocity is not None
    if ports:
        return "both" if velocity else "ports"
    return "velocity" if velocity else "none"


def teachers(config: DataJob) -> list[str]:
    """The names of the experts that the run uses."""
    return [] if name(config) == "none" else sorted(config.experts)


def port_experts(config: DataJob) -> dict[str, Expert]:
    """The experts that feed ports; a teacher of velocities alone has an empty node."""
    if not config.pathway.ports:
        return {}
    return {k: build(node, f"experts.{k}") for k, node in config.experts.items() if node}


def target_experts(config: DataJob) -> dict[str, TargetExpert]:
    """Teacher -> its velocities."""
    from tinyflux_pl.experts.velocity import Velocity

    velocity = config.pathway.velocity
    if velocity is None:
        return {}
    seed = config.teacher.seed
    return {k: Velocity(k, velocity.t_buckets, seed, velocity.int8) for k in config.experts}


def velocity_targets(
    pathway: Pathway, targets: Iterable[TargetExpert], seed: int
) -> VelocityTargets | None:
    """The cached velocity targets of a run, with the settings of its pathway; None without any."""
    experts = tuple(targets)
    if pathway.velocity is None or not experts:
        return None
    from tinyflux_pl.objectives.velocity_targets import VelocityTargets

    of_experts = ("t_buckets", "int8")
    settings: dict[str, Any] = {
        key: value for key, value in pathway.velocity.plain.items() if key not in of_experts
    }
    return VelocityTargets(experts, **settings, seed=seed)


def groups(
    config: DataJob, source: str, experts: Iterable[str], targets: Mapping[str, TargetExpert]
) -> dict[str, tuple[str, ...]]:
    """Split -> groups of the cache of a source: the encodings, then what its experts know.

    Validation measures the student without ports, and the error of the velocities.
    """
    from tinyflux_pl.cache.store import ENCODINGS

    listed = config.data.sources[source].experts
    ported = tuple(k for k in experts if listed is None or k in listed)
    velocities = tuple(t.name for k, t in targets.items() if listed is None or k in listed)
    return {"train": (ENCODINGS, *ported, *velocities), "validation": (ENCODINGS, *velocities)}


def check(config: DataJob) -> None:
    """Raise ConfigError for experts, sources and a pathway that are inconsistent."""
    _check_sources(config)
    _check_nodes(config)
    _check_online(config)
    _check_line(config)


def check_records(config: DataJob, records: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise ConfigError for data whose cached velocities would not belong to the step's sample.

    A cached teacher saw the first caption, and no picture of several frames is cached for it.
    """
    if config.pathway.velocity is None or not config.experts:
        return
    for source, splits in records.items():
        if any(split.variants > 1 for split in splits.values()):
            raise ConfigError(
                "a teacher's velocity belongs to one caption, and these pictures have several",
                where=f"data.sources.{source}",
                cure="pathway=ports, or one caption a picture",
            )
    if config.data.buckets is not None and config.data.buckets.enabled:
        raise ConfigError(
            "velocities are cached for pictures of one frame",
            where="data.buckets",
            cure="pathway=ports, or data.buckets.enabled=false",
        )


def check_training(config: Train, trains: str) -> None:
    """Raise ConfigError for velocities without a denoiser, and for a gate without validation."""
    velocity, online = config.pathway.velocity, config.pathway.online
    if not config.experts or (velocity is None and online is None):
        return
    if trains != "denoiser":
        raise ConfigError("only a denoiser has velocities", where="pathway", cure="experts=none")
    if velocity is not None and velocity.gate and not config.callbacks.validation.every_steps:
        raise ConfigError(
            "the gate compares with the student's error, and nothing measures it before the end",
            where="callbacks.validation.every_steps",
            cure="validate every so many steps, or pathway.velocity.gate=false",
        )


def _check_sources(config: DataJob) -> None:
    """Refuse an expert that only a source names, or that no source has."""
    sources = config.data.sources
    for source, node in sources.items():
        for expert in node.experts or ():
            if expert not in config.experts:
                has = ", ".join(config.experts) or "none"
                raise ConfigError(
                    f"the source has the expert {expert!r}, and the run has {has}",
                    where=f"data.sources.{source}.experts",
                    cure=f"choose experts={expert} or lune_sol, or remove {expert} from the source",
                )
    for expert in config.experts:
        if all(
            node.experts is not None and expert not in node.experts for node in sources.values()
        ):
            raise ConfigError(
                f"no source has the expert {expert!r}",
                where=f"experts.{expert}",
                cure=f"add it to one, data.sources.NAME.experts=[{expert}], or drop it: experts=",
            )


def _check_nodes(config: DataJob) -> None:
    """Refuse ports without an expert, and velocities of a teacher with another clock."""
    for expert, node in config.experts.items():
        if not node and config.pathway.ports:
            raise ConfigError(
                f"the teacher {expert!r} has no features for ports",
                where=f"experts.{expert}",
                cure="pathway=velocity",
            )
        clock = node.get("clock", MATCHED)
        if config.pathway.velocity is not None and clock != MATCHED:
            raise ConfigError(
                f"clock={clock} gives the teacher other noise than the student",
                where=f"experts.{expert}.clock",
                cure=f"clock={MATCHED}, or pathway=ports",
            )


def _check_online(config: DataJob) -> None:
    """Refuse several teachers in a step."""
    if config.pathway.online is None or not config.experts:
        return
    if len(config.experts) > 1:
        raise ConfigError(
            f"pathway=online has one teacher in the step, and the run has {len(config.experts)}",
            where="experts",
            cure="experts=" + " or experts=".join(config.experts) + ", or pathway=velocity",
        )


def _check_line(config: DataJob) -> None:
    """Refuse keys of experts on the command line that this pathway does not read."""
    if config.pathway.ports:
        return
    for line in config.overrides:
        key = line.lstrip("+~").partition("=")[0]
        unread = config.pathway.online is not None and key in ("teacher.seed", "teacher.precision")
        if unread or key.startswith("experts."):
            raise ConfigError(
                f"pathway={name(config)} does not read {key}",
                where=key,
                cure="leave it out, or pathway=ports or both; velocities: pathway.velocity.KEY",
            )
