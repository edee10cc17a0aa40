"""Cache of Hydra's compositions for command lines that differ only in plain values."""

from __future__ import annotations

import copy
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra._internal import config_loader_impl
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.types import Override

CONF = Path(__file__).resolve().parents[2] / "conf"
GROUPS = {folder.name for folder in CONF.iterdir() if folder.is_dir()}


@contextmanager
def kept(memory: dict[Any, Any]) -> Generator[None]:
    """Within the block, compute once what no value of a key changes; Hydra applies the values."""
    listing, composing = (
        config_loader_impl.create_defaults_list,
        ConfigLoaderImpl._compose_config_from_defaults_list,
    )
    lists, configs = memory.setdefault("lists", {}), memory.setdefault("configs", {})

    def listed(
        repo: Any, config_name: Any, overrides_list: Sequence[Override], **options: Any
    ) -> Any:
        values = [override for override in overrides_list if _is_value(override)]
        choices = [override for override in overrides_list if not _is_value(override)]
        cache_key = (
            config_name,
            *(o.input_line for o in choices),
            *(s.path for s in repo.get_sources()),
            *options.items(),
        )
        if cache_key not in lists:
            lists[cache_key] = listing(
                repo=repo, config_name=config_name, overrides_list=choices, **options
            )
        composition = lists[cache_key]
        return replace(composition, config_overrides=[*composition.config_overrides, *values])

    def composed(self: Any, defaults: Any, repo: Any) -> Any:
        # the list itself is kept above, so no other takes its place
        if id(defaults) not in configs:
            configs[id(defaults)] = composing(self, defaults=defaults, repo=repo)
        return copy.deepcopy(configs[id(defaults)])

    config_loader_impl.create_defaults_list = listed
    ConfigLoaderImpl._compose_config_from_defaults_list = composed
    try:
        yield
    finally:
        config_loader_impl.create_defaults_list = listing
        ConfigLoaderImpl._compose_config_from_defaults_list = composing


def _is_value(override: Override) -> bool:
    """True for an override applied after composition: no choice or removal of a group."""
    key = override.key_or_group
    plain = not (
        override.is_add()
        or override.is_force_add()
        or override.is_delete()
        or override.is_sweep_override()
    )
    return "." in key or (plain and override.package is None and key not in (*GROUPS, "hydra"))
