"""The keys of nodes without `_target_`: their types, and which of their values mean something."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from tinyflux_pl.config import cross_checks as places_apart
from tinyflux_pl.config import logger_endpoints as loggers
from tinyflux_pl.config import signatures
from tinyflux_pl.config import target_nodes as built_nodes
from tinyflux_pl.config.bind import Keys, NotEmpty, Range, bind
from tinyflux_pl.config.callback_schema import Callbacks, Count, Positive, Seed
from tinyflux_pl.config.hardware_schema import Hardware
from tinyflux_pl.core.errors import ConfigError

Text = Annotated[str, NotEmpty()]


@dataclass(frozen=True)
class Paths(Keys):
    """Where everything lies."""

    root: Text
    outputs: Text
    cache: Text


@dataclass(frozen=True)
class Source(Keys):
    """One source of data; what its splits' targets take is judged by their signatures."""

    cache: Text
    train: dict[str, Any]
    validation: dict[str, Any]
    weight: Annotated[float, Range(above=0)] = 1.0
    experts: list[str] | None = None  # null: all that the run has

    def __post_init__(self) -> None:
        super().__post_init__()
        for split in ("train", "validation"):
            if "_target_" not in (getattr(self, split) or {}):
                raise ConfigError(f"{split} has no _target_", where=split, cure="name the class of its records")


@dataclass(frozen=True)
class Data(Keys):
    """What every dataset has."""

    others = True
    name: str
    in_memory: bool
    evaluation_prompts: Count
    store_dtype: Literal["float16", "bfloat16", "float32"]
    shard_size: Positive
    sources: dict[str, Source]
    extraction_batch: Positive = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.sources:
            raise ConfigError("no sources of data", where="sources", cure="choose data=shapes, folder, ...")


@dataclass(frozen=True)
class Teacher(Keys):
    """What every choice of teachers has."""

    others = True
    width: Positive
    seed: Seed
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] | None = None


@dataclass(frozen=True)
class Train(Keys):
    """train.py"""

    others = True
    seed: Seed
    run: Annotated[str | int, NotEmpty()]
    steps: Positive
    preflight: bool | Literal["only", "plan"]
    export_teacher: Literal["lune", "sol"] | None
    replay: str | None
    resume: str | None
    resume_changed: bool
    paths: Paths
    hardware: Hardware
    data: Data
    teacher: Teacher
    callbacks: Callbacks

    def __post_init__(self) -> None:
        super().__post_init__()
        if str(self.resume).lower() in ("true", "yes", "on", "1", "latest", "last"):
            cure = "resume=auto goes on from the newest valid checkpoint of run=NAME; a folder is given by its path"
            raise ConfigError(f"resume is {self.resume}", where="resume", cure=cure)


@dataclass(frozen=True)
class Extract(Keys):
    """extract.py"""

    others = True
    seed: Seed
    run: Annotated[str | int, NotEmpty()]
    rebuild: bool
    doctor: str | bool | None
    repair: bool
    paths: Paths
    hardware: Hardware
    data: Data
    teacher: Teacher


@dataclass(frozen=True)
class Generate(Keys):
    """generate.py"""

    others = True
    prompt: str | None
    negative_prompt: str | None
    checkpoint: str | None
    weights: Literal["averaged", "raw"]
    prompt_file: str | None
    condition: str | None
    n: Annotated[int, Range(least=1, most=10**6)]
    batch_size: Annotated[int | None, Range(least=1, most=10**6)]
    grid: Count
    reference: str | list[str] | None
    image: str | None
    mask: str | None
    plan: Literal["check", "only", "skip"]
    seed: Annotated[int, Range(least=-1, most=2**63 - 1)]
    first: Count
    height: Annotated[int | None, Range(least=1, most=2**16)]
    width: Annotated[int | None, Range(least=1, most=2**16)]
    output: str | None
    run: Annotated[str | int, NotEmpty()]
    paths: Paths
    hardware: Hardware


TASKS = {"train": Train, "extract": Extract, "generate": Generate}
GROUPS = "paths codec text path timesteps objective optimizer schedule sampler guidance teacher experts data model"
DRAWN = ("paths", "codec", "text", "path", "sampler", "guidance", "model", "hardware")
NEEDED = (*GROUPS.split(), "hardware", "callbacks", "logger")


def fields(name: str) -> tuple[str, ...]:
    """The keys that the schema of a script, or of the node `data` or `teacher`, declares."""
    kinds = {**TASKS, "data": Data, "teacher": Teacher}
    return tuple(field.name for field in dataclasses.fields(kinds[name]))


def check(config: Mapping[str, Any], task: str) -> None:
    """Raise ConfigError for the first plain value of a resolved configuration that the task cannot work with."""
    check_plain(config, task)
    if task != "extract":
        _check_drawing(config, null=task == "generate" or bool(config.get("release")))


def check_plain(config: Mapping[str, Any], task: str) -> None:
    """The part of `check` that needs no torch."""
    for name in NEEDED if task != "generate" else DRAWN:
        if name not in config:
            raise ConfigError(f"there is no {name}", where=name, cure=f"choose one: {name}=..., without ~{name}")
    for name in ("sampler", "guidance"):
        if name in config and not isinstance(config[name], Mapping):
            raise ConfigError(f"{name} is {config[name]!r}", where=name, cure=f"choose one: {name}=NAME")
    bind(TASKS[task], config, "")
    built_nodes.check(config, task)
    if task != "generate":
        places_apart.check(config["data"]["sources"], config["paths"])
        loggers.check(config["logger"])


def _check_drawing(config: Mapping[str, Any], *, null: bool) -> None:
    """Sampler and guidance, of which a checkpoint or a release may know what is `null` here."""
    from tinyflux_pl.diffusion.guidance import Guidance
    from tinyflux_pl.sampling.loop import SamplerSettings

    unsaid = [key for key, value in config["sampler"].items() if value is None and not null]
    if unsaid:
        what, where = "the sampler is a release's own, and model= names no release", f"sampler.{unsaid[0]}"
        raise ConfigError(what, where=where, cure="choose sampler=euler or sampler=heun, or the model= of that release")

    def told(kind: type, group: str, **more: Any) -> Any:
        given = {key: value for key, value in config[group].items() if value is not None or not null}
        return kind(**signatures.check(kind, given, group, tuple(more)), **more)

    told(SamplerSettings, "sampler", guidance=told(Guidance, "guidance"))
