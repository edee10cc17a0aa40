"""Checks of the hydra node before hydra.main builds callbacks, launcher, sweeper and logging."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from tinyflux_pl.config import allowlist, hydra_logging, hydra_options
from tinyflux_pl.core.errors import ConfigError

SEARCH = "hydra.searchpath"
BUILT = ("callbacks", "launcher", "sweeper")
BASIC_SWEEPER = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"
TARGETS = frozenset(
    (
        "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
        BASIC_SWEEPER,
        "hydra.experimental.callbacks.LogJobReturnCallback",
        *hydra_options.SWEEPERS,
        *hydra_options.OPTIONS,
    )
)
# of launchers and sweepers: keys that hold commands to run, or name what is imported and called, or
# options of the job's script, one of which may be a command
RUN = ("custom_search_space", "python", "setup", "srun_args", "teardown", "additional_parameters")
# keys that name what is built: written out, since one choice of a sweep could turn another's ${...}
# into a class
LITERAL = ("_target_", "class", "()", *RUN)


def check_searchpath(folders: Sequence[Path], config_name: str, lines: Sequence[str]) -> None:
    """Raise ConfigError unless hydra.searchpath has folders alone: pkg://NAME is imported.

    Checked before anything is composed, since composing does the importing. Of files, Hydra takes
    the search path from the root configuration only, with its interpolations resolved.
    """
    entries: list[tuple[str, Any]] = []
    for line in lines:
        key, _, value = line.partition("=")
        if key.strip("+~ ") == SEARCH:
            with suppress(HydraException):  # a line that cannot be read is reported later
                value = OverridesParser.create().parse_overrides([line])[0].value()
            entries.append(("the command line", value))
    for folder in folders:
        file = folder / f"{config_name.removesuffix('.yaml')}.yaml"
        if file.is_file():
            with suppress(OmegaConfBaseException, YAMLError):
                raw: Any = OmegaConf.to_container(
                    OmegaConf.create(file.read_text(encoding="utf-8"))
                )
                hydra = raw.get("hydra") if isinstance(raw, dict) else None
                entries.append(
                    (str(file), hydra.get("searchpath") if isinstance(hydra, dict) else hydra)
                )
    for where, value in entries:
        check_entries(value, where)


def check_entries(value: Any, where: str) -> None:
    """Raise ConfigError unless a search path is a folder or a list of folders, as written."""
    for entry in value if isinstance(value, list) else [value]:
        scheme, mark, _ = str(entry).partition("://")
        if (mark and scheme != "file") or "${" in str(entry):
            raise ConfigError(
                f"{SEARCH} may not import {str(entry)!r}",
                where=where,
                cure="name a folder of this machine, without pkg:// or ${...}",
            )


def check(config: DictConfig) -> dict[str, Any]:
    """Raise ConfigError for anything that Hydra would build, run, import or write, unless allowed.

    Checked twice: as it resolves now (callbacks are built in this state), and with the values that
    Hydra fills in later. Returns the resolved nodes that Hydra uses: those it builds now, and the
    logging of the job later.
    """
    job = OmegaConf.select(config, "hydra.job")
    if job is not None and (_may_be_set(job, "env_set") or _may_be_set(job, "env_copy")):
        what = "a configuration may not set environment variables, which decide who receives tokens"
        cure = "set them in the shell, before the command"
        raise ConfigError(what, where="hydra.job.env_set", cure=cure)
    if job is not None and _may_be_set(job, "chdir"):
        what = "a run may not change its working folder: paths are relative to that of the command"
        raise ConfigError(
            what, where="hydra.job.chdir", cure="leave it false, and choose paths.root="
        )
    now = copy.deepcopy(config)
    built = _check_stage(now, strict=False)
    OmegaConf.copy_cache(now, config)  # so that Hydra sees the very time that was checked
    logged = _check_stage(as_filled_by_hydra(config), strict=True)
    return {part: (built if part in BUILT else logged)[part] for part in built}


def check_and_resolve(config: DictConfig) -> None:
    """Check the hydra node and write back the resolved values, so that none is resolved again.

    Our own sweeper takes the place of Hydra's, which stops at a failed batch and keeps no table.
    """
    nodes = check(config)
    if isinstance(nodes["sweeper"], dict) and nodes["sweeper"].get("_target_") == BASIC_SWEEPER:
        nodes["sweeper"]["_target_"] = hydra_options.COMBINATIONS
    for part in hydra_logging.NODES:
        raw = _raw(config, part)
        for name, handler in ((nodes[part] or {}).get("handlers") or {}).items():
            if isinstance(handler, dict) and handler.get("filename") is not None:
                written = raw["handlers"][name]["filename"]
                handler["filename"] = hydra_logging.log_name(written, handler["filename"])
    with read_write(config), open_dict(config):
        for part, node in nodes.items():
            if OmegaConf.select(config, f"hydra.{part}") is not None:
                config.hydra[part] = node


def _may_be_set(job: DictConfig, key: str) -> bool:
    """True if a key has a value, or may have one after resolution."""
    return OmegaConf.is_interpolation(job, key) or (key in job and bool(job[key]))


def _raw(config: DictConfig, part: str) -> Any:
    node = OmegaConf.select(config, f"hydra.{part}")
    return OmegaConf.to_container(node, resolve=False) if OmegaConf.is_config(node) else node


def _check_stage(config: DictConfig, *, strict: bool) -> dict[str, Any]:
    from hydra.core.hydra_config import HydraConfig

    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(config)  # ${hydra:...} reads it
    nodes: dict[str, Any] = {}
    try:
        for part in (*BUILT, *hydra_logging.NODES):
            key = f"hydra.{part}"
            if OmegaConf.is_interpolation(config.hydra, part):
                cure = "write it out: no ${...} may decide what is built here"
                what = "an interpolation may not name what Hydra builds"
                raise ConfigError(what, where=key, cure=cure)
            nodes[part] = _walk(OmegaConf.select(config, key), key, strict or part in BUILT)
        for part in BUILT:
            _check_targets(nodes[part], f"hydra.{part}")
        hydra_options.check_sweeper(nodes["sweeper"])
        sweep_dir = OmegaConf.select(config, "hydra.sweep.dir")
        hydra_options.check_launcher(nodes["launcher"], sweep_dir and str(sweep_dir))
        for part in hydra_logging.NODES:
            hydra_logging.check(nodes[part], _raw(config, part), f"hydra.{part}")
        for key in ("job.name", "output_subdir"):
            _check_name(OmegaConf.select(config, f"hydra.{key}"), f"hydra.{key}")
    finally:
        HydraConfig.instance().cfg = before
    return nodes


def _check_name(name: Any, where: str) -> None:
    """Require the name of one file or folder, so that joining it stays inside the run's folder."""
    if name is not None and (str(name) in ("", ".", "..") or set(str(name)) & set("/\\\0\n")):
        raise ConfigError(
            f"{str(name)!r} is not a plain name", where=where, cure="a name without / or \\"
        )


def _check_targets(node: Any, where: str) -> None:
    for key in RUN if isinstance(node, dict) else ():
        if node.get(key):
            cure = "do that in the shell, before the command, or in the script of the job"
            raise ConfigError(
                f"a configuration may not set what {key} runs", where=f"{where}.{key}", cure=cure
            )
    for key, name in allowlist.targets(node, where):
        if not isinstance(name, str) or name not in TARGETS:
            cure = "use Hydra's launchers and sweepers without callbacks"
            raise ConfigError(f"Hydra may not build {name!r}", where=key, cure=cure)


def as_filled_by_hydra(config: DictConfig) -> DictConfig:
    """A copy with the values that Hydra fills in once it has numbered the job."""
    filled = copy.deepcopy(config)
    with read_write(filled.hydra):
        filled.hydra.runtime.output_dir = "."
        filled.hydra.job.id, filled.hydra.job.num = "0", 0
    return filled


def _walk(node: Any, where: str, strict: bool) -> Any:
    """The node as plain containers; an unresolvable value is None, or a ConfigError when strict."""
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
                what = f"cannot resolve: {str(error).splitlines()[0]}"
                raise ConfigError(what, where=f"{where}.{key}", cure="fix the ${...}") from error
            value = None
        if OmegaConf.is_interpolation(node, key) and (key in LITERAL or OmegaConf.is_config(value)):
            cure = "write it out: no ${...} may decide what is built here"
            raise ConfigError(
                "an interpolation may not name what Hydra builds", where=f"{where}.{key}", cure=cure
            )
        values[key] = _walk(value, f"{where}.{key}", strict)
    return values if isinstance(node, DictConfig) else list(values.values())
