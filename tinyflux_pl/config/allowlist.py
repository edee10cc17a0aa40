"""Allowlist of `_target_`s: components of tinyflux_pl, torch optimizers, Lightning loggers.

A name is checked as a string before anything is imported, and the object that it leads to is
checked again, because `tinyflux_pl.some.module.os.system` begins with an allowed prefix.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

from tinyflux_pl.config.renamed_targets import current_target
from tinyflux_pl.core.errors import ConfigError, MissingDependency

PROJECT = "tinyflux_pl."
# packages of machinery (files, command line, recipes): nothing that a configuration has to
# build
_PACKAGES = (
    "core.",
    "weights.",
    "cache.",
    "config.",
    "app.",
    "checkpoints.",
    "extraction.",
    "inference.",
)
_FILES = ("training.replay_bundle.", "data.images.decode_log.", "experts.teacher_export.")
CLOSED = tuple(PROJECT + module for module in (*_PACKAGES, *_FILES))
_OPTIMIZERS = (
    "Adadelta Adafactor Adagrad Adam AdamW Adamax ASGD LBFGS Muon NAdam RAdam RMSprop Rprop SGD"
)
_SCHEDULERS = (
    "ConstantLR CosineAnnealingLR CosineAnnealingWarmRestarts ExponentialLR LinearLR MultiStepLR "
    "OneCycleLR "
    "PolynomialLR StepLR"
)
_LOGGERS = "CSVLogger TensorBoardLogger WandbLogger MLFlowLogger"
# those that neither write files nor need Lightning's own validation, checkpoints or step count
_CALLBACKS = "ModelSummary RichModelSummary Timer"
NAMED = frozenset(
    (
        *(f"torch.optim.{name}" for name in _OPTIMIZERS.split()),
        *(f"torch.optim.lr_scheduler.{name}" for name in _SCHEDULERS.split()),
        *(f"lightning.pytorch.loggers.{name}" for name in _LOGGERS.split()),
        *(f"lightning.pytorch.callbacks.{name}" for name in _CALLBACKS.split()),
    )
)
# the packages whose classes are parts of a run; of functions, those that build one: the others
# compute, read or write
_PARTS = (
    "codecs.",
    "text.",
    "denoisers.",
    "diffusion.",
    "objectives.",
    "techniques.",
    "experts.",
    "methods.",
    "data.",
    "nets.",
)
_PARTS += ("training.optimizers.", "training.metrics_file.", "training.callbacks.")
_PARTS += ("training.wandb_logger.", "training.tensorboard_logger.")
PARTS = tuple(PROJECT + package for package in _PARTS)
_BUILDERS = re.compile(
    r"tinyflux_pl\.(?:denoisers\.[a-z0-9_]+\.build(?:_[a-z0-9_]+)?|experts\.teacher\.(?:embedded|sd15_flow)"
    r"|experts\.released_teacher\.released"
    r"|codecs\.(?:bezier|kl)_networks\.build|training\.optimizers\.adamw"
    r"|data\.sequences\.codecs\.(?:identity|conditions)_for)",
    re.ASCII,
)
_DATA = PROJECT + "data."
# where the class that a name of another package leads to must have been defined
_ORIGIN = {"torch.": ("torch.optim.",), "lightning.": ("lightning.", "pytorch_lightning.")}
# no private part, no dunder
_DOTTED = re.compile(r"[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z][A-Za-z0-9_]*)+", re.ASCII)
_CURE = (
    "name a part of tinyflux_pl that conf/ names, torch.optim.AdamW and kin, or a Lightning logger"
)


def targets(config: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """Every (dotted key, `_target_` value) of nested plain containers."""
    if isinstance(config, Mapping):
        for key, value in config.items():
            if key == "_target_":
                yield where, value
            else:
                yield from targets(value, f"{where}.{key}" if where else str(key))
    elif isinstance(config, list | tuple):
        for index, value in enumerate(config):
            yield from targets(value, f"{where}.{index}" if where else str(index))


def check_name(name: Any, where: str = "") -> None:
    """Raise ConfigError unless the string may be a target. Imports nothing."""
    if not isinstance(name, str) or not _DOTTED.fullmatch(name):
        raise ConfigError(
            f"not a plain dotted name of a class: _target_ {name!r}", where=where, cure=_CURE
        )
    name = current_target(name)
    if name in NAMED or (name.startswith(PARTS) and not name.startswith(CLOSED)):
        return
    raise ConfigError(f"_target_ is not on the allowlist: {name}", where=where, cure=_CURE)


def check_names(config: Any, where: str = "") -> None:
    """Check every target of a configuration by name, before anything heavy is imported."""
    for key, name in targets(config, where):
        check_name(name, key)


def resolve(name: str, where: str = "") -> Any:
    """Import an allowed target and check that the object is defined where its name says."""
    check_name(name, where)
    name = str(current_target(name))
    parts = name.split(".")
    target, depth = _deepest_module(parts, where)
    for part in parts[depth:]:
        target = getattr(target, part, None)
        if target is None:
            raise ConfigError(
                f"there is no {name}",
                where=where,
                cure="look for the class by its name in the package",
            )
        if inspect.ismodule(target):  # a module that this one imports, not a part of it
            raise ConfigError(
                f"_target_ is an alias of another module: {name}", where=where, cure=_CURE
            )
    origin = f"{getattr(target, '__module__', None) or ''}."
    allowed = next((o for p, o in _ORIGIN.items() if name.startswith(p)), (PROJECT,))
    in_project = name.startswith(PROJECT)
    builder = in_project and inspect.isroutine(target) and _BUILDERS.fullmatch(name)
    kind = inspect.isclass(target) or builder
    if in_project and kind and inspect.isclass(target) and origin.startswith(_DATA):
        from tinyflux_pl.data.records.record_source import RecordSource

        kind = issubclass(target, RecordSource)  # other classes read and write stored files
    if not kind or not origin.startswith(allowed) or origin.startswith(CLOSED):
        end = f"{origin}{getattr(target, '__qualname__', '?')}"
        raise ConfigError(f"_target_ {name} leads to {end}", where=where, cure=_CURE)
    return target


def check(config: Any, where: str = "") -> None:
    """Raise ConfigError for the first target that is not allowed.

    All are checked by name first, then by object.
    """
    check_names(config, where)
    for key, name in targets(config, where):
        resolve(name, key)


def _deepest_module(parts: list[str], where: str) -> tuple[Any, int]:
    """The module that the longest prefix of the name imports, and how many parts it took."""
    module, depth = importlib.import_module(parts[0]), 1
    while depth < len(parts) - 1:
        name = ".".join(parts[: depth + 1])
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name == name or error.name is None:
                break
            raise MissingDependency(
                f"{name} needs the package {error.name}",
                where=where,
                cure=f"pip install {error.name}",
            ) from error
        depth += 1
    return module, depth
