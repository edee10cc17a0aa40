"""The hydra node, judged before hydra.main: it builds callbacks, launcher, sweeper and logging itself."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf, read_write
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from tinyflux_pl.app.config import allowlist
from tinyflux_pl.core.errors import ConfigError

SEARCH = "hydra.searchpath"
BUILT = ("callbacks", "launcher", "sweeper")
LOGGED = ("job_logging", "hydra_logging")
TARGETS = frozenset(
    (
        "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
        "hydra._internal.core_plugins.basic_sweeper.BasicSweeper",
        "hydra.experimental.callbacks.LogJobReturnCallback",
        "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher",
        "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper",
        "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher",
        "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher",
        *(f"optuna.samplers.{n}Sampler" for n in ("CmaEs", "Grid", "NSGAII", "QMC", "Random", "TPE")),
    )
)
# logging.config builds what `class` and `()` name, and imports what follows ext://
HANDLERS = (
    "colorlog.ColoredFormatter",
    "logging.FileHandler",
    "logging.Formatter",
    "logging.NullHandler",
    "logging.StreamHandler",
    "logging.handlers.RotatingFileHandler",
    "rich.logging.RichHandler",
)
STREAMS = ("ext://sys.stdout", "ext://sys.stderr")
# of launchers and sweepers: keys that hold commands to run, or name what is imported and called
RUN = ("custom_search_space", "python", "setup", "srun_args", "teardown")
# keys that name what is built: written out, since one choice of a sweep could turn another's ${...} into a class
LITERAL = ("_target_", "class", "()")


def check_searchpath(folders: Sequence[Path], config_name: str, lines: Sequence[str]) -> None:
    """Raise ConfigError unless hydra.searchpath names folders alone: what follows pkg:// is imported.

    Judged before anything is composed, since composing does the importing. Of files, Hydra takes the
    search path from the root configuration only, and from there with its interpolations resolved.
    """
    entries: list[tuple[str, Any]] = []
    for line in lines:
        key, _, value = line.partition("=")
        if key.strip("+~ ") == SEARCH:
            with suppress(HydraException):  # a line that cannot be read is told later
                value = OverridesParser.create().parse_overrides([line])[0].value()
            entries.append(("the command line", value))
    for folder in folders:
        file = folder / f"{config_name.removesuffix('.yaml')}.yaml"
        if file.is_file():
            with suppress(OmegaConfBaseException, YAMLError):
                raw: Any = OmegaConf.to_container(OmegaConf.create(file.read_text(encoding="utf-8")))
                hydra = raw.get("hydra") if isinstance(raw, dict) else None
                entries.append((str(file), hydra.get("searchpath") if isinstance(hydra, dict) else hydra))
    for where, value in entries:
        for entry in value if isinstance(value, list) else [value]:
            scheme, mark, _ = str(entry).partition("://")
            if (mark and scheme != "file") or "${" in str(entry):
                raise ConfigError(
                    f"{SEARCH} may not import {str(entry)!r}",
                    where=where,
                    cure="name a folder of this machine, without pkg:// or ${...}",
                )


def check(config: DictConfig) -> None:
    """Raise ConfigError if Hydra would build anything that is not named here.

    Judged twice: as it resolves now (callbacks are built in this state), and with the values that
    Hydra fills in later, so that no interpolation can turn into a target after the check.
    """
    if OmegaConf.select(config, "hydra.job.env_set"):
        what = "a configuration may not set environment variables: they decide which hosts are sent the user's tokens"
        raise ConfigError(what, where="hydra.job.env_set", cure="set them in the shell, before the command")
    if OmegaConf.select(config, "hydra.job.chdir"):
        what = "a run may not change its working folder: paths are relative to where the command was given"
        raise ConfigError(what, where="hydra.job.chdir", cure="leave it false, and choose paths.root=")
    _check_stage(copy.deepcopy(config), strict=False)
    _check_stage(_as_filled_by_hydra(config), strict=True)


def _check_stage(config: DictConfig, *, strict: bool) -> None:
    from hydra.core.hydra_config import HydraConfig

    HydraConfig.instance().set_config(config)  # ${hydra:...} reads it
    try:
        for part in BUILT:
            _check_targets(_walk(OmegaConf.select(config, f"hydra.{part}"), f"hydra.{part}", strict), f"hydra.{part}")
        for part in LOGGED:
            _check_logging(_walk(OmegaConf.select(config, f"hydra.{part}"), f"hydra.{part}", strict), f"hydra.{part}")
    finally:
        HydraConfig.instance().cfg = None


def _check_targets(node: Any, where: str) -> None:
    for key in RUN if isinstance(node, dict) else ():
        if node.get(key):
            cure = "do that in the shell, before the command, or in the script of the job"
            raise ConfigError(f"a configuration may not say what {key} runs", where=f"{where}.{key}", cure=cure)
    for place, name in allowlist.targets(node, where):
        if isinstance(name, str) and name in TARGETS:
            continue
        if isinstance(name, str) and name.startswith(allowlist.HOUSE):
            allowlist.resolve(name, place)
            continue
        raise ConfigError(
            f"Hydra may not build {name!r}", where=place, cure="use Hydra's own launchers and sweepers, no callback"
        )


def _check_logging(node: Any, where: str) -> None:
    if isinstance(node, list | tuple):
        for index, value in enumerate(node):
            _check_logging(value, f"{where}.{index}")
    elif isinstance(node, dict):
        for key, value in node.items():
            if key in ("class", "()") and value not in HANDLERS:
                raise ConfigError(f"logging may not build {value!r}", where=f"{where}.{key}", cure="use logging's own")
            if key == "filename" and value is not None and not str(value).endswith(".log"):
                what = f"logging may not write to {value!r}: with a format of its own that could be a program"
                raise ConfigError(what, where=f"{where}.{key}", cure="give a name that ends in .log")
            _check_logging(value, f"{where}.{key}")
    elif isinstance(node, str) and node.startswith("ext://") and node not in STREAMS:
        raise ConfigError(
            f"logging may not import {node}", where=where, cure="use ext://sys.stdout or ext://sys.stderr"
        )


def _as_filled_by_hydra(config: DictConfig) -> DictConfig:
    filled = copy.deepcopy(config)
    with read_write(filled.hydra):
        filled.hydra.runtime.output_dir = "."
        filled.hydra.job.id, filled.hydra.job.num = "0", 0
    return filled


def _walk(node: Any, where: str, strict: bool) -> Any:
    """The node as plain containers; what does not resolve is None, or a ConfigError when strict."""
    if not isinstance(node, DictConfig | ListConfig):
        return node
    if node._is_none() or node._is_missing():
        return None
    keys = list(node) if isinstance(node, DictConfig) else range(len(node))
    values: dict[Any, Any] = {}
    for key in keys:
        if OmegaConf.is_missing(node, key):
            continue
        try:
            value = node[key]
        except OmegaConfBaseException as error:
            if strict:
                what = str(error).splitlines()[0]
                raise ConfigError(f"cannot resolve: {what}", where=f"{where}.{key}", cure="mend the ${...}") from error
            value = None
        if OmegaConf.is_interpolation(node, key) and (key in LITERAL or OmegaConf.is_config(value)):
            cure = "write it out: no ${...} may decide what is built here"
            raise ConfigError("an interpolation may not name what Hydra builds", where=f"{where}.{key}", cure=cure)
        values[key] = _walk(value, f"{where}.{key}", strict)
    return values if isinstance(node, DictConfig) else list(values.values())
