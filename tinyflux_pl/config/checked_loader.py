"""Hydra's configuration loader with a check: an unchecked configuration is never used.

Overrides reach Hydra from the command line, from hydra.sweeper.params of a file, from a sweeper's
own search, and in the processes that a launcher starts. All of them are composed here.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from hydra._internal import hydra
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tinyflux_pl.config import allowlist, hydra_node, redact
from tinyflux_pl.core.errors import ConfigError

DEEPEST = 64  # levels of nested nodes; an interpolation of itself has no end


class CheckedLoader(ConfigLoaderImpl):
    """Raises ConfigError instead of returning a configuration that is not allowed."""

    def load_configuration(self, *args: Any, **kwargs: Any) -> DictConfig:
        try:
            config = super().load_configuration(*args, **kwargs)
        # of hydra.job.env_copy: refused below where the variable is there
        except KeyError as error:
            what = f"hydra.job.env_copy names {error}, which the environment lacks"
            raise ConfigError(what, where="hydra.job.env_copy", cure="leave it out") from error
        check(config)
        return config

    def _process_config_searchpath(
        self, config_name: Any, parsed_overrides: Any, repo: Any
    ) -> None:
        """Check the search path before any entry is opened: opening pkg:// imports."""
        for override in parsed_overrides:
            if override.get_key_element().lstrip("+~") == hydra_node.SEARCH:
                hydra_node.check_entries(override.value(), "an override")
        loaded = repo.load_config(config_path=config_name) if config_name is not None else None
        if loaded is not None and isinstance(loaded.config, DictConfig):
            raw: Any = OmegaConf.to_container(loaded.config, resolve=False)
            node = raw.get("hydra") if isinstance(raw, dict) else None
            hydra_node.check_entries(
                (node.get("searchpath") or []) if isinstance(node, dict) else node or [],
                str(config_name),
            )
        super()._process_config_searchpath(config_name, parsed_overrides, repo)


def check(config: DictConfig) -> None:
    """Raise ConfigError for a forbidden target, secret or Hydra feature; resolves all values."""
    hydra_node.check_and_resolve(config)
    job = resolved(config, without=("hydra",))
    allowlist.check_names(job)
    redact.check(job)
    # the machine's name and the working folder are not chosen by the configuration
    redact.check({"hydra": resolved(hydra_node.as_filled_by_hydra(config).hydra, ("runtime",))})


@contextmanager
def installed() -> Generator[None]:
    """Inside, Hydra composes with CheckedLoader."""
    original = hydra.ConfigLoaderImpl
    hydra.ConfigLoaderImpl = CheckedLoader  # ty: ignore[invalid-assignment]
    try:
        yield
    finally:
        hydra.ConfigLoaderImpl = original


def resolved(node: Any, without: tuple[str, ...] = (), depth: int = 0) -> Any:
    """Plain containers; a value that does not resolve yet stays as written."""
    if depth > DEEPEST:
        what = "a ${...} of the configuration refers to itself"
        raise ConfigError(
            what, where=str(node._get_full_key(None))[:200], cure="write the value out"
        )
    if not isinstance(node, DictConfig | ListConfig):
        return node
    if node._is_none() or node._is_missing():
        return None
    keys = node.keys() if isinstance(node, DictConfig) else range(len(node))
    values: dict[Any, Any] = {}
    for key in keys:
        if key in without:
            continue
        try:
            value = node[key]
        except (OmegaConfBaseException, RecursionError):
            value = str(OmegaConf.to_container(node, resolve=False)[key])  # ty: ignore[invalid-argument-type]
        values[key] = resolved(value, (), depth + 1)
    return values if isinstance(node, DictConfig) else list(values.values())
