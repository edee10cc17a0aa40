"""The typed configuration of the three scripts: every plain key, its type and its range."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, overload

from tinyflux_pl.config import (
    cross_checks,
    logger_endpoints,
    signatures,
    target_nodes,
    wandb_names,
)
from tinyflux_pl.config.bind import Keys, NotEmpty, Range, bind
from tinyflux_pl.config.cache_schema import Cache, Engine
from tinyflux_pl.config.callback_schema import Callbacks, Count, Positive
from tinyflux_pl.config.data_schema import Data, Node, Source, Teacher, Text
from tinyflux_pl.config.hardware_schema import Hardware
from tinyflux_pl.config.offered_experts import offered_experts
from tinyflux_pl.config.pathway_schema import Pathway
from tinyflux_pl.config.release_schema import Release
from tinyflux_pl.config.stage_schema import Stage
from tinyflux_pl.core.errors import ConfigError

__all__ = ["Data", "Extract", "Generate", "Hardware", "Job", "Node", "Source", "Teacher", "Train"]


@dataclass(frozen=True)
class Paths(Keys):
    """Root of the project's files, and the folders of runs and caches."""

    root: Text
    outputs: Text
    cache: Text


@dataclass(frozen=True)
class Job(Keys):
    """Keys that every script has."""

    open_ended = True
    run: Annotated[str | int, NotEmpty()]
    run_dir: str
    paths: Paths
    hardware: Hardware
    codec: Node
    text: Node
    path: Node
    model: Node
    overrides: list[str] = dataclasses.field(default_factory=list, kw_only=True)
    flags: list[str] = dataclasses.field(default_factory=list, kw_only=True)
    sweep: str | None = dataclasses.field(default=None, kw_only=True)  # name of its folder
    swept: list[str] = dataclasses.field(default_factory=list, kw_only=True)  # its own overrides
    release: Release | None = dataclasses.field(default=None, kw_only=True)


@dataclass(frozen=True)
class DataJob(Job):
    """Keys of the scripts that read data: extract.py and train.py."""

    seed: Annotated[int, Range(least=0, most=2**64 - 1)]  # generate.py draws one for -1
    data: Data
    teacher: Teacher
    experts: dict[str, Node]
    pathway: Pathway
    timesteps: Node
    objective: Node
    optimizer: Node
    schedule: Node
    sampler: Node
    guidance: Node
    method: Node
    technique: dict[str, Node] = dataclasses.field(default_factory=dict, kw_only=True)


@dataclass(frozen=True)
class Train(DataJob):
    """Keys of train.py."""

    steps: Positive
    preflight: bool | Literal["only", "plan"]
    report: bool
    export_teacher: str | None
    replay: str | None
    resume: str | None
    resume_changed: bool
    optimized_metric: str | list[str] | None
    init: str | None
    simulate: bool
    callbacks: Callbacks
    logger: dict[str, Node]
    trial: Node | None = dataclasses.field(default=None, kw_only=True)  # of a search: set by it
    stages: dict[str, Stage] = dataclasses.field(default_factory=dict, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.export_teacher not in (None, *offered_experts()):
            what = f"export_teacher is {self.export_teacher}"
            cure = f"the expert to teach: {' or '.join(offered_experts())}"
            raise ConfigError(what, where="export_teacher", cure=cure)
        if str(self.resume).lower() in ("true", "yes", "on", "1", "latest", "last"):
            cure = "resume=auto: the newest valid checkpoint of run=NAME; or a checkpoint's path"
            raise ConfigError(f"resume is {self.resume}", where="resume", cure=cure)


@dataclass(frozen=True)
class Extract(DataJob):
    """Keys of extract.py."""

    rebuild: bool
    doctor: str | bool | None
    repair: bool
    prune: bool
    export_pt: Annotated[str | None, NotEmpty()]


@dataclass(frozen=True)
class Generate(Job):
    """Keys of generate.py."""

    sampler: Node
    guidance: Node
    prompt: str | None
    negative_prompt: str | None
    checkpoint: str | None
    weights: Literal["averaged", "raw"]
    base: str | None
    lora: str | list[str] | dict[str, float] | None
    embedding: str | list[str] | None
    prompt_file: str | None
    condition: str | None
    n: Annotated[int, Range(least=1, most=10**6)]
    batch_size: Annotated[int | None, Range(least=1, most=10**6)]
    grid: Count
    reference: str | list[str] | None
    image: str | None
    control: str | None
    control_hint: Literal["given", "canny"]
    control_strength: Annotated[float, Range(least=0, most=10)]
    strength: Annotated[float | None, Range(above=0, most=1)]
    from_image: str | None
    cache: Cache
    engine: Engine
    mask: str | None
    plan: Literal["check", "only", "skip"]
    simulate: bool
    seed: Annotated[int, Range(least=-1, most=2**63 - 1)]
    first: Count
    height: Annotated[int | None, Range(least=1, most=2**16)]
    width: Annotated[int | None, Range(least=1, most=2**16)]
    output: str | None

    def __post_init__(self) -> None:
        super().__post_init__()
        staged = self.engine.chosen != "resident" or self.engine.prompts is not None
        if self.condition is not None and (staged or self.engine.precision is not None):
            cure = "leave engine.placement=, budget=, prompts= and precision= out"
            raise ConfigError("sequences are drawn resident", where="condition", cure=cure)
        idle = {"checkpoint": self.checkpoint, "condition": self.condition}
        idle["plan"] = self.plan if self.plan == "only" else None
        if self.control is None and (self.control_hint, self.control_strength) != ("given", 1.0):
            raise ConfigError("there is no map", where="control", cure="give it: control=PICTURE")
        for name, value in idle.items():
            if self.simulate and value is not None:
                what = "a simulation draws a model= in small, on random weights"
                raise ConfigError(what, where=name, cure=f"leave {name}= or simulate= out")

    @property
    def references(self) -> list[str]:
        """Files of the pictures to edit."""
        return [self.reference] if isinstance(self.reference, str) else self.reference or []


Task = Literal["train", "extract", "generate"]
TASKS = {"train": Train, "extract": Extract, "generate": Generate}
GROUPS = (
    "paths codec text path timesteps objective optimizer schedule sampler guidance teacher experts "
    "pathway data model"
)
DRAWN = ("paths", "codec", "text", "path", "sampler", "guidance", "model", "hardware")
NEEDED = (*GROUPS.split(), "hardware", "callbacks", "logger")


def fields(name: str) -> tuple[str, ...]:
    """The keys declared for a script, or for the node `data` or `teacher`."""
    kinds = {**TASKS, "data": Data, "teacher": Teacher}
    return tuple(field.name for field in dataclasses.fields(kinds[name]))


@overload
def read(config: Mapping[str, Any], task: Literal["train"]) -> Train: ...
@overload
def read(config: Mapping[str, Any], task: Literal["extract"]) -> Extract: ...
@overload
def read(config: Mapping[str, Any], task: Literal["generate"]) -> Generate: ...


def read(config: Mapping[str, Any], task: Task) -> Train | Extract | Generate:
    """The resolved configuration of a script, typed.

    Raises ConfigError for the first plain value that the script cannot work with.
    """
    typed = read_without_torch(config, task)
    if not isinstance(typed, Extract):
        _check_sampler(typed, null_allowed=task == "generate" or bool(typed.release))
    return typed


def read_without_torch(config: Mapping[str, Any], task: Task) -> Train | Extract | Generate:
    """As `read`, except for the values of sampler and guidance, whose classes import torch."""
    for name in NEEDED if task != "generate" else DRAWN:
        if name not in config:
            cure = f"choose one: {name}=..., without ~{name}"
            raise ConfigError(f"there is no {name}", where=name, cure=cure)
    for name in ("sampler", "guidance"):
        if not isinstance(config[name], Mapping):
            cure = f"choose one: {name}=NAME"
            raise ConfigError(f"{name} is {config[name]!r}", where=name, cure=cure)
    target_nodes.check(config, task)
    typed = bind(TASKS[task], config, "")
    if isinstance(typed, DataJob):
        cross_checks.check(config["data"]["sources"], config["paths"])
        logger_endpoints.check(config["logger"])
        wandb_names.check(config["logger"])
    return typed


def _check_sampler(config: Train | Generate, *, null_allowed: bool) -> None:
    """Check sampler and guidance; `null_allowed`: a checkpoint or a release fills in null."""
    from tinyflux_pl.diffusion.guidance import Guidance
    from tinyflux_pl.sampling.loop import SamplerSettings

    unset = [key for key, value in config.sampler.items() if value is None and not null_allowed]
    if unset:
        raise ConfigError(
            "this sampler takes its settings from a release, and model= names no release",
            where=f"sampler.{unset[0]}",
            cure="choose sampler=euler or sampler=heun, or the model= of that release",
        )

    def settings(group: str, node: Node, kind: type, **objects: Any) -> Any:
        values = {k: v for k, v in node.items() if v is not None or not null_allowed}
        return kind(**signatures.check(kind, values, group, tuple(objects)), **objects)

    guidance = settings("guidance", config.guidance, Guidance)
    settings("sampler", config.sampler, SamplerSettings, guidance=guidance)
