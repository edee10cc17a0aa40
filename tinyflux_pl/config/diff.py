"""What a resumed run is asked for differently, and what of the run that changes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tinyflux_pl.config import allowlist
from tinyflux_pl.config.build import build
from tinyflux_pl.config.renamed_targets import current_target
from tinyflux_pl.config.saved_nodes import build_saved
from tinyflux_pl.core.errors import ConfigError

# Of one start, not of the run.
UNTOLD = (
    "task",
    "run",
    "run_dir",
    "overrides",
    "flags",
    "resume",
    "resume_changed",
    "from_step",
    "replay",
    "preflight",
    "hydra",
)
# What a run computes does not depend on these. Any other key is taken to change it: a new one too.
FREE = (
    *("paths", "steps", "export_teacher", "logger", "sampler", "guidance", "hardware.workers"),
    *("hardware.memory_gb", "hardware.drawn_at_once"),
    *("callbacks.checkpoint", "callbacks.preview", "callbacks.validation", "callbacks.log_every_steps"),
    *("data.root", "data.in_memory", "data.evaluation_prompts", "data.shard_size", "data.extraction_batch"),
)
PLACES = ("cache", "root", "decoded")  # within data.sources: where files lie; what they hold has its own fingerprint
# The same sums in another order: equal but for rounding.
ROUNDING = ("accelerator", "devices", "strategy", "threads", "compile", "accumulation", "gradient_checkpointing")
# Of these, those that divide a batch otherwise, and those that draw with another generator: strata of times belong to
# a micro-batch, dropout's masks to a micro-batch and a generator.
DIVIDING = ("devices", "strategy", "accumulation")
# What a configuration leaves to a release's scheduler, where it has no path of its own.
LEFT_OPEN = ("path", "sampler", "model.prediction", "codec.data_deviation", "text.zero_null")
REDRAWN = (*DIVIDING, "accelerator", "compile")
NOTHING, LAST_BITS, ANOTHER_RUN = "nothing", "the last bits", "another run"


@dataclass(frozen=True)
class Change:
    """A key whose value is not what it was, and what of the run that changes."""

    key: str
    then: Any
    now: Any
    effect: str


def changes(then: Mapping[str, Any], now: Mapping[str, Any], step: int, dropout: bool = False) -> list[Change]:
    """What differs between two configurations, for a run that is `step` steps old, of a network with `dropout`."""
    before, after = _flat(then), _flat(now)
    before = _closed(before, after)
    before |= {key: value for key, value in _defaults(before, after).items() if value == after[key]}
    keys = [key for key in sorted(before | after) if before.get(key) != after.get(key) and _told(key)]
    same_rates = any(key.startswith("schedule.") for key in keys) and _same_rates(then, now, step)
    redrawn = REDRAWN if dropout else DIVIDING if _stratified(before) or _stratified(after) else ()
    effects = [_effect(key, same_rates, redrawn) for key in keys]
    return [Change(key, before.get(key), after.get(key), effect) for key, effect in zip(keys, effects, strict=True)]


def has_dropout(network: Mapping[str, Any]) -> bool:
    """Whether the network that a checkpoint describes has dropout of its own."""
    return any(key.endswith("dropout") and bool(value) for key, value in _flat(network).items())


def _defaults(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Key -> what its target took for a key that an older release did not know, where the target is still the same."""
    found = {}
    for key in after.keys() - before.keys():
        node, _, name = key.rpartition(".")
        target = after.get(f"{node}._target_")
        if target is not None and target == before.get(f"{node}._target_"):
            parameter = inspect.signature(allowlist.resolve(target)).parameters.get(name)
            if parameter is not None and parameter.default is not parameter.empty:
                found[key] = parameter.default
    return found


def _closed(before: dict[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """A run's keys, with what older runs left unsaid as it is said now: the scheduler's part was not yet kept."""
    if before.get("path") != {}:
        return before
    said = {key: value for key, value in before.items() if key != "path"}
    unsaid = {key: value for key, value in after.items() if _in(LEFT_OPEN, key) and said.get(key) is None}
    return {**said, **unsaid}


def _stratified(flat: Mapping[str, Any]) -> bool:
    return str(flat.get("timesteps._target_")).endswith(".Stratified")


def _told(key: str) -> bool:
    """Not what names this start, nor what only repeats the run's folder."""
    return not _in(UNTOLD, key) and not (key.startswith("logger.") and key.endswith(".save_dir"))


def _effect(key: str, same_rates: bool, redrawn: Sequence[str]) -> str:
    group, _, rest = key.partition(".")
    place = key.startswith("data.sources.") and key.rpartition(".")[2] in PLACES
    if _in(FREE, key) or place or (group == "schedule" and same_rates):
        return NOTHING
    return LAST_BITS if group == "hardware" and rest in ROUNDING and rest not in redrawn else ANOTHER_RUN


def _same_rates(then: Mapping[str, Any], now: Mapping[str, Any], step: int) -> bool:
    """Whether both schedules give the steps already taken the same learning rates; a schedule of unknown kind does not.

    `then` is what a file says: it is compared, and built only where it names what this project offers.
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
    return {k: v for name, value in node.items() for k, v in _flat(value, f"{key}.{name}" if key else name).items()}


def _in(names: tuple[str, ...], key: str) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in names)
