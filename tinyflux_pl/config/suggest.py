"""Compose the line before Hydra does, to suggest the nearest key or choice for a wrong one."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import IConfigRepository
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from tinyflux_pl.config import allowlist, empty_values, signatures, sweep_jobs, synonyms
from tinyflux_pl.config.composition_errors import COMPOSING, explained
from tinyflux_pl.config.dotted_keys import dotted
from tinyflux_pl.config.signatures import nearest, suggestion
from tinyflux_pl.core.errors import ConfigError


class KnownKeys:
    """Groups, choices and keys of one root configuration."""

    def __init__(
        self, loader: ConfigLoaderImpl, hydra: Hydra, config_name: str, lines: list[str]
    ) -> None:
        self.loader, self.hydra, self.config_name = loader, hydra, config_name
        self.search = [line for line in lines if line.startswith("hydra.searchpath=")]

    @cached_property
    def _files(self) -> IConfigRepository:
        """The files of the search path, opened once: the loader would reopen them each time."""
        return self.loader._parse_overrides_and_create_caching_repo(self.config_name, self.search)[
            1
        ]

    def choices(self, group: str) -> list[str]:
        """The options of a group; empty if there is no such group."""
        return self._files.get_group_options(group, ObjectType.CONFIG)

    def groups(self, parent: str = "", depth: int = 3) -> list[str]:
        """Every group that has options, hydra's own included."""
        names: list[str] = []
        for name in self._files.get_group_options(parent, ObjectType.GROUP) if depth else []:
            group = f"{parent}/{name}" if parent else name
            names += ([group] if self.choices(group) else []) + self.groups(group, depth - 1)
        return names

    def compose(self, lines: list[str]) -> DictConfig:
        """The composed configuration, hydra node included; raise ConfigError."""
        try:
            return self.hydra.compose_config(
                self.config_name,
                lines,
                run_mode=RunMode.RUN,
                with_log_configuration=False,
                from_shell=False,
            )
        except COMPOSING as error:
            raise explained(error) from error

    def is_group(self, override: Override) -> bool:
        """True if Hydra would read this override as the choice of a group."""
        dictionary = not override.is_sweep_override() and isinstance(override.value(), dict)
        return not dictionary and bool(self.choices(override.key_or_group))

    def check_choice(self, override: Override) -> None:
        """Raise ConfigError naming the nearest option of the group."""
        if override.is_delete():
            return
        options = self.choices(override.key_or_group)
        chosen: list[Any] = []
        for value in sweep_jobs.values(override):
            chosen += value if isinstance(value, list) else [value]
        for value in chosen:
            if value is None or str(value) not in options:
                text = "null" if value is None else value
                raise ConfigError(
                    f"{override.key_or_group}={text}: there is no such choice",
                    where=f"conf/{override.key_or_group}/",
                    cure=f"{suggestion(str(value), options)}there are: {', '.join(options)}",
                )

    def check_key(self, override: Override, keys: dict[str, Any]) -> None:
        """Raise ConfigError for an unknown key, with the nearest key or the syntax to add it."""
        key = override.key_or_group
        if key in keys and override.package is None:
            return
        if _takes(keys.get(key.rpartition(".")[0]), key.rpartition(".")[2]):
            cure = f"it can be added: +{key}=..."
            raise ConfigError(
                f"conf/ does not list {key}", where=f"conf/{self.config_name}.yaml", cure=cure
            )
        cure = f"{self.advice(key, keys)}all keys: --cfg job"
        raise ConfigError(f"unknown key: {key}", where=f"conf/{self.config_name}.yaml", cure=cure)

    def advice(self, key: str, keys: dict[str, Any]) -> str:
        """Advice on an unknown key: a similar name, or the group choice that has the key."""
        if advice := synonyms.advice(key, keys):
            return advice
        group, _, rest = key.partition(".")
        listed = (
            {choice: self._listed(group, choice) for choice in self.choices(group)} if rest else {}
        )
        if bringing := [choice for choice, names in listed.items() if rest in names]:
            return f"it comes with {' or '.join(f'{group}={choice}' for choice in bringing[:4])}; "
        if near := suggestion(key, {*keys, *self.groups()}):
            return near
        for choice, names in listed.items():
            if near := nearest(rest, names):
                return f"did you mean {group}.{near[0]}, which comes with {group}={choice}? "
        return ""

    def _listed(self, group: str, choice: str) -> list[str]:
        """The dotted keys below its group that the file of a choice lists."""
        try:
            read = self._files.load_config(f"{group}/{choice}")
        except COMPOSING:
            return []
        node = OmegaConf.to_container(read.config, resolve=False) if read is not None else None
        if isinstance(node, dict) and read.header.get("package") == "_global_":
            node = node.get(group)
        return [key for key, _ in dotted(node)]


@contextmanager
def known_keys(
    root: Path, config_name: str, config_dir: str | None, lines: list[str]
) -> Generator[KnownKeys]:
    """Open the configuration folder as hydra.main will, with `config_dir` before it."""
    GlobalHydra.instance().clear()
    search_path = create_config_search_path(str(root))
    if config_dir is not None:
        search_path.prepend(
            "command-line",
            f"file://{Path(config_dir).resolve()}",
            SearchPathQuery(provider="schema"),
        )
    hydra = Hydra.create_main_hydra2(task_name=config_name, config_search_path=search_path)
    loader = hydra.config_loader
    assert isinstance(loader, ConfigLoaderImpl)
    try:
        yield KnownKeys(loader, hydra, config_name, lines)
    finally:
        GlobalHydra.instance().clear()


def composed(
    root: Path,
    config_name: str,
    lines: list[str],
    config_dir: str | None = None,
    *,
    multirun: bool = True,
) -> list[DictConfig]:
    """The configuration of each job that the line asks for, hydra node included.

    Raise ConfigError on a value that cannot be read, an unknown key, group or choice.
    """
    with known_keys(root, config_name, config_dir, lines) as loaded:
        overrides = _parsed(lines, loaded.loader)
        if not multirun:
            sweep_jobs.require_multirun(overrides)
        groups = [o for o in overrides if loaded.is_group(o)]
        for override in groups:
            loaded.check_choice(override)
        jobs = sweep_jobs.jobs(overrides)
        try:
            configs = [loaded.compose(job) for job in jobs]
        except ConfigError:  # Hydra's own answer, where ours is no better
            added = [o in groups or o.is_add() or o.is_force_add() for o in overrides]
            base = [line for line, is_added in zip(jobs[0], added, strict=True) if is_added]
            keys = dict(dotted(OmegaConf.to_container(loaded.compose(base), resolve=False)))
            for override, is_added in zip(overrides, added, strict=True):
                if not is_added:
                    loaded.check_key(override, keys)
            raise
        for job, config in zip(jobs, configs, strict=True):
            if any("{" in line for line in job):
                empty_values.check(_parsed(job, loaded.loader), config)
        if multirun and (of_file := sweep_jobs.params(configs[0], overrides)):
            jobs = sweep_jobs.jobs([*_parsed(of_file, loaded.loader), *overrides])
            return [loaded.compose(job) for job in jobs]
        return configs


def _takes(node: Any, name: str) -> bool:
    """True if the node's target accepts `name` and it is not a likely typo of a listed key."""
    if (
        not isinstance(node, dict)
        or "_target_" not in node
        or get_close_matches(name, node, n=1, cutoff=0.75)
    ):
        return False
    try:
        target = allowlist.resolve(node["_target_"])
        signatures.check(target, {}, "", (name,), complete=False)
    except ConfigError:
        return False
    return True


def _parsed(lines: list[str], loader: ConfigLoaderImpl) -> list[Override]:
    parser = OverridesParser.create(config_loader=loader)
    overrides: list[Override] = []
    for line in lines:
        try:
            overrides += parser.parse_overrides([line])
        except COMPOSING as error:
            key = line.split("=", 1)[0]
            cure = (
                f"""quote it: '{key}="..."'"""
                if "=" in line
                else "write key=value; a choice is group=name"
            )
            raise ConfigError(
                f"cannot read {line!r}", where="the command line", cure=cure
            ) from error
    return overrides
