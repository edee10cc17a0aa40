"""Differences between a run's configuration and the one that resumes it, with their effects."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tinyflux_pl.config import allowlist
from tinyflux_pl.config.build import build
from tinyflux_pl.config.data_schema import Buckets, Captions
from tinyflux_pl.config.pathway_schema import PORTS
from tinyflux_pl.config.renamed_targets import current_target
from tinyflux_pl.config.saved_nodes import build_saved
from tinyflux_pl.core.errors import ConfigError

# These describe one start of the run, not the run.
IGNORED_KEYS = (
    "task",
    "run",
    "run_dir",
    "overrides",
    "flags",
    "sweep",
    "swept",
    "resume",
    "resume_changed",
    "from_step",
    "replay",
    "preflight",
    "optimized_metric",
    "simulate",
    "trial",
    "report",
    "hydra",
    "stages",
)
# Keys that do not affect the result. Any other key, a new one too, is taken to change it.
HARMLESS_KEYS = (
    *(
        "paths",
        "init",
        "steps",
        "export_teacher",
        "logger",
        "sampler",
        "guidance",
        "hardware.workers",
        "release.references",
    ),
    *("hardware.memory_gb", "hardware.context_gb", "hardware.drawn_at_once"),
    *(
        "callbacks.checkpoint",
        "callbacks.preview",
        "callbacks.validation",
        "callbacks.log_every_steps",
        "callbacks.early_stopping",
    ),
    *(
        "data.root",
        "data.in_memory",
        "data.evaluation_prompts",
        "data.shard_size",
        "data.extraction_batch",
    ),
)
# Paths within data.sources; the contents of the files have a fingerprint of their own.
LOCATION_KEYS = ("cache", "root", "decoded")
# Keys that only change the order of sums: equal results up to rounding.
ROUNDING = (
    "accelerator",
    "devices",
    "strategy",
    "threads",
    "compile",
    "accumulation",
    "gradient_checkpointing",
)
# DIVIDING: those of them that change the micro-batches, and so the strata of timesteps.
# REDRAWN: those that change the micro-batches or the generator, and so the masks of dropout.
DIVIDING = ("devices", "strategy", "accumulation")
# Validation decides where a gated teacher is used.
GATE = "pathway.velocity.gate"
GATING = (
    "callbacks.validation.every_steps",
    "callbacks.validation.times",
    "callbacks.validation.samples",
)
# Keys that a configuration without a path leaves to the release's scheduler.
LEFT_OPEN = ("path", "sampler", "model.prediction", "codec.data_deviation", "text.zero_null")
FULL = "tinyflux_pl.methods.full.Full"
REDRAWN = (*DIVIDING, "accelerator", "compile")
NOTHING, LAST_BITS, ANOTHER_RUN = "nothing", "the last bits", "another run"


@dataclass(frozen=True)
class Change:
    """A key whose value has changed, and the effect on the run."""

    key: str
    then: Any
    now: Any
    effect: str


def changes(
    then: Mapping[str, Any], now: Mapping[str, Any], step: int, dropout: bool = False
) -> list[Change]:
    """Changed keys, for a run that is `step` steps old and a network with or without `dropout`."""
    before, after = _flat(then), _flat(now)
    before = _closed(before, after)
    if not any(_in(("method",), key) for key in before):
        before["method._target_"] = FULL  # the only one that older runs had
    if "callbacks.extra" in after:
        before.setdefault("callbacks.extra", [])  # older runs had none
    for key in ("callbacks.validation.samples",):  # older runs had no limit, few reached one
        if key in after:
            before.setdefault(key, after[key])
    before |= _data_defaults(before, after)
    if not any(_in(("pathway",), key) for key in before):
        before |= _flat(PORTS, "pathway")  # the only one that older runs had
    before |= {key: value for key, value in _defaults(before, after).items() if value == after[key]}
    compared = filter(_is_compared, sorted(before | after))
    keys = [key for key in compared if before.get(key) != after.get(key)]
    same_rates = any(key.startswith("schedule.") for key in keys) and _same_rates(then, now, step)
    redrawn = REDRAWN if dropout else DIVIDING if _stratified(before) or _stratified(after) else ()
    gating = GATING if before.get(GATE) or after.get(GATE) else ()
    binding = (*_read_by_method(after), *gating)
    effects = [_effect(key, same_rates, redrawn, binding) for key in keys]
    return [
        Change(key, before.get(key), after.get(key), effect)
        for key, effect in zip(keys, effects, strict=True)
    ]


def has_dropout(network: Mapping[str, Any]) -> bool:
    """True if the network or method that a checkpoint describes has dropout."""
    return any(key.endswith("dropout") and bool(value) for key, value in _flat(network).items())


def _data_defaults(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Defaults of data.captions and data.buckets, which older runs did not save."""
    kinds = {"captions": Captions(), "buckets": Buckets()}
    parts = {key: key.split(".") for key in after.keys() - before.keys()}
    return {
        key: vars(kinds[names[-2]])[names[-1]]
        for key, names in parts.items()
        if names[0] == "data" and names[-2] in kinds and names[-1] in vars(kinds[names[-2]])
    }


def _defaults(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Default of each key that an older release did not have, if its target is the same."""
    defaults: dict[str, Any] = {}
    for key in after.keys() - before.keys():
        node, _, name = key.rpartition(".")
        target = after.get(f"{node}._target_")
        if target is not None and target == before.get(f"{node}._target_"):
            parameter = inspect.signature(allowlist.resolve(target)).parameters.get(name)
            if parameter is not None and parameter.default is not parameter.empty:
                defaults[key] = parameter.default
    return defaults


def _closed(before: dict[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """A run's keys, completed from `after`: older runs did not save the scheduler's settings."""
    if before.get("path") != {}:
        return before
    saved = {key: value for key, value in before.items() if key != "path"}
    left_open = ((key, value) for key, value in after.items() if _in(LEFT_OPEN, key))
    unsaved = {key: value for key, value in left_open if saved.get(key) is None}
    return {**saved, **unsaved}


def _stratified(flat: Mapping[str, Any]) -> bool:
    return str(flat.get("timesteps._target_")).endswith(".Stratified")


def _is_compared(key: str) -> bool:
    """False for a key of a single start, and for one that repeats the run's folder."""
    is_log_folder = key.startswith("logger.") and key.endswith(".save_dir")
    return not _in(IGNORED_KEYS, key) and not is_log_folder


def _read_by_method(after: Mapping[str, Any]) -> tuple[str, ...]:
    """The sampling groups that affect what the run's method learns."""
    target = after.get("method._target_")
    return () if target is None else allowlist.resolve(target).reads


def _effect(key: str, same_rates: bool, redrawn: Sequence[str], binding: tuple[str, ...]) -> str:
    group, _, rest = key.partition(".")
    if group in binding or key in binding:
        return ANOTHER_RUN
    is_location = key.startswith("data.sources.") and key.rpartition(".")[2] in LOCATION_KEYS
    if _in(HARMLESS_KEYS, key) or is_location or (group == "schedule" and same_rates):
        return NOTHING
    return (
        LAST_BITS
        if group == "hardware" and rest in ROUNDING and rest not in redrawn
        else ANOTHER_RUN
    )


def _same_rates(then: Mapping[str, Any], now: Mapping[str, Any], step: int) -> bool:
    """True if both schedules give the same learning rates up to the current step.

    `then` comes from a file: its schedule is built only if this project offers its target, and
    counts as different otherwise.
    """
    try:
        before = build_saved(then.get("schedule"), "schedule", now["schedule"], "config.json")
    except ConfigError:
        return False
    after = build(now["schedule"])
    return all(before(s) == after(s) for s in range(step))


def _flat(node: Any, key: str = "") -> dict[str, Any]:
    if not isinstance(node, Mapping) or not node:
        return {key: current_target(node) if key.endswith("_target_") else node}
    return {
        k: v
        for name, value in node.items()
        for k, v in _flat(value, f"{key}.{name}" if key else name).items()
    }


def _in(names: tuple[str, ...], key: str) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in names)
