"""What the plain keys of a configuration may hold; those below a `_target_` are judged by its signature."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyflux_pl.app.signatures import suggestion
from tinyflux_pl.core.errors import ConfigError


@dataclass(frozen=True)
class Rule:
    """What a key wants, in words, and whether a value is that."""

    wants: str
    holds: Callable[[Any], bool]


def _whole(least: int) -> Rule:
    return Rule(f"a whole number of at least {least}", lambda v: type(v) is int and v >= least)


def _one_of(*choices: Any) -> Rule:
    words = ", ".join(str(c).lower() if type(c) is bool else str(c) for c in choices)
    return Rule(f"one of {words}", lambda v: any(type(v) is type(c) and v == c for c in choices))


def _or_null(rule: Rule) -> Rule:
    return Rule(f"{rule.wants}, or null", lambda v: v is None or rule.holds(v))


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_list(value: Any, of: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and bool(value) and all(map(of, value))


TRUTH, WHOLE, TEXT = Rule("true or false", lambda v: type(v) is bool), _whole(0), Rule("a name or a path", _is_text)
SEED = Rule("a whole number", lambda v: type(v) is int)
FACTOR = _or_null(Rule("a number", _is_number))
PROMPTS = _or_null(Rule("a list of prompts", lambda v: _is_list(v, _is_text)))
SPAN = Rule("two numbers from 0 to 1", lambda v: _is_list(v, _is_number) and len(v) == 2)
TIMES = Rule("a list of numbers from 0 to 1", lambda v: _is_list(v, lambda t: _is_number(t) and 0 <= t <= 1))
DEVICES = Rule(
    "a number of devices, a list of their indices, -1 or auto: all",
    lambda v: v in (-1, "auto") or (type(v) is int and v > 0) or _is_list(v, lambda i: type(i) is int and i >= 0),
)
WEIGHT = Rule("a number above 0", lambda v: _is_number(v) and v > 0)
NODE = Rule("a node with a _target_", lambda v: isinstance(v, Mapping) and "_target_" in v)
RULES = {
    "run": Rule("a name", lambda v: _is_text(v) or type(v) is int),
    **dict.fromkeys(("data.name", "paths.root", "paths.outputs", "paths.cache"), TEXT),
    **dict.fromkeys(("resume", "replay"), _or_null(TEXT)),
    **dict.fromkeys(("resume_changed", "rebuild", "repair", "data.in_memory", "hardware.compile"), TRUTH),
    **dict.fromkeys(("callbacks.ema.warmup", "callbacks.checkpoint.background"), TRUTH),
    **dict.fromkeys(("seed", "teacher.seed"), SEED),
    **dict.fromkeys(("steps", "data.shard_size", "data.extraction_batch", "hardware.batch_size"), _whole(1)),
    **dict.fromkeys(("hardware.accumulation", "callbacks.checkpoint.keep", "callbacks.preview.count"), _whole(1)),
    **dict.fromkeys((f"callbacks.{n}.every_steps" for n in ("checkpoint", "preview", "validation")), WHOLE),
    **dict.fromkeys(("callbacks.checkpoint.every_epochs", "callbacks.log_every_steps", "hardware.workers"), WHOLE),
    **dict.fromkeys(("callbacks.guard.loss_factor", "callbacks.guard.norm_factor"), FACTOR),
    **dict.fromkeys(("callbacks.guard.max_consecutive", "callbacks.guard.max_recent"), _whole(1)),
    "preflight": _one_of(True, False, "only"),
    "export_teacher": _or_null(_one_of("lune", "sol")),
    "doctor": Rule("a folder, true, or null", lambda v: v is None or type(v) is bool or _is_text(v)),
    "data.evaluation_prompts": WHOLE,
    "data.store_dtype": _one_of("float32", "bfloat16", "float16"),
    "teacher.width": _whole(1),
    "hardware.accelerator": _one_of("cpu", "gpu", "cuda"),
    "hardware.devices": DEVICES,
    "hardware.strategy": _one_of("auto", "ddp", "ddp_find_unused_parameters_true", "fsdp", "single_device"),
    "hardware.precision": _one_of("auto", "32-true", "bf16-mixed", "16-mixed"),
    "hardware.threads": _or_null(_whole(1)),
    "hardware.gradient_checkpointing": TRUTH,
    "callbacks.ema.decay": Rule("a number from 0 to below 1", lambda v: _is_number(v) and 0 <= v < 1),
    "callbacks.preview.prompts": PROMPTS,
    "callbacks.validation.times": TIMES,
    "callbacks.guard.warmup": WHOLE,
    "guidance.interval": SPAN,
}
SOURCE = {"weight": WEIGHT, "cache": TEXT, "train": NODE, "validation": NODE}
OPTIONAL = ("guidance.interval", "data.extraction_batch", "callbacks.preview.prompts", "teacher.width")
GROUPS = "paths codec text path timesteps objective optimizer schedule sampler guidance teacher experts data model"
NEEDED = (*GROUPS.split(), "hardware", "callbacks", "logger")
CLOSED = ("hardware", "callbacks")  # nothing else in them is read
# A configuration of others would decide whom this user's keys are sent to, as by hydra.job.env_set.
ADDRESSED = ("settings", "tracking_uri")


def check(config: Mapping[str, Any]) -> None:
    """Raise ConfigError for the first value that training or extraction could not work with; reads no file."""
    for name in NEEDED:
        if name not in config:
            raise ConfigError(f"there is no {name}", where=name, cure=f"choose one: {name}=..., without ~{name}")
    for key, rule in RULES.items():
        value = _found(config, key)
        if key.partition(".")[0] in config and (value is not None or key not in OPTIONAL):
            _require(value, rule, key)
    for section in CLOSED:
        _require_known(config[section], section, RULES)
    _check_sources(config["data"].get("sources"))
    _check_places(config["data"]["sources"], config["paths"])
    for name, node in config["logger"].items():
        for key in ADDRESSED:
            if key in node:
                what = "a configuration may not say whom a logger sends this user's keys to"
                cure = "say it in the shell, before the command: WANDB_BASE_URL, MLFLOW_TRACKING_URI"
                raise ConfigError(what, where=f"logger.{name}.{key}", cure=cure)


def _found(config: Any, key: str) -> Any:
    """The value at a dotted key; None where there is none."""
    for name in key.split("."):
        config = config.get(name) if isinstance(config, Mapping) else None
    return config


def _require(value: Any, rule: Rule, key: str) -> None:
    if not rule.holds(value):
        raise ConfigError(f"{key} is {value!r}", where=key, cure=f"it wants {rule.wants}")


def _require_known(node: Any, where: str, rules: Mapping[str, Any]) -> None:
    for name, value in node.items():
        key = f"{where}.{name}"
        if isinstance(value, Mapping) and any(known.startswith(f"{key}.") for known in rules):
            _require_known(value, key, rules)
        elif key not in rules:
            near = {known for known in rules if known.startswith(f"{where}.")}
            sections = {".".join(known.split(".")[: key.count(".") + 1]) for known in near}
            raise ConfigError(f"nothing reads {key}", where=key, cure=f"{suggestion(key, sections)}leave it out")


def _check_places(nodes: Mapping[str, Any], paths: Mapping[str, str]) -> None:
    """What a run writes would be read as a part of the dataset that it lies in."""
    for name, node in nodes.items():
        if not _is_text(node["train"].get("root")):
            continue
        root = Path(node["train"]["root"]).expanduser().resolve()
        for place in (node["cache"], paths["cache"], paths["outputs"]):
            if Path(place).resolve().is_relative_to(root):
                what = f"the dataset {root} holds what runs write: {place}"
                cure = "give the images a folder of their own, or write elsewhere: paths.root=/another/folder"
                raise ConfigError(what, where=f"data.sources.{name}.train.root", cure=cure)


def _check_sources(nodes: Any) -> None:
    if not isinstance(nodes, Mapping) or not nodes:
        raise ConfigError("no sources of data", where="data.sources", cure="choose data=shapes, folder, ...")
    caches: dict[str, Path] = {}
    for name, node in nodes.items():
        where = f"data.sources.{name}"
        if not isinstance(node, Mapping):
            raise ConfigError(f"{where} is {node!r}", where=where, cure=f"it wants {', '.join(SOURCE)}")
        _require_known(node, where, {f"{where}.{key}": rule for key, rule in SOURCE.items()})
        for key, rule in SOURCE.items():
            if key in node or key != "weight":
                _require(node.get(key), rule, f"{where}.{key}")
        mine = Path(node["cache"]).expanduser().resolve()
        for other, cache in caches.items():
            if mine.is_relative_to(cache) or cache.is_relative_to(mine):
                what = f"the caches of {other} and {name} lie in one another: {cache} and {mine}"
                raise ConfigError(what, where=f"{where}.cache", cure="give each source a folder of its own")
        caches[name] = mine
