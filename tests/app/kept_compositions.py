"""Hydra's lists of defaults, and what they compose, kept for lines that differ in plain values
alone.
"""

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
    """Within blocks of one `memory`, what no value of a key changes is computed once; Hydra applies
    the values.
    """
    listing, composing = (
        config_loader_impl.create_defaults_list,
        ConfigLoaderImpl._compose_config_from_defaults_list,
    )
    lists, configs = memory.setdefault("lists", {}), memory.setdefault("configs", {})

    def listed(
        repo: Any, config_name: Any, overrides_list: Sequence[Override], **options: Any
    ) -> Any:
        values = [override for override in overrides_list if _is_value(override)]
        others = [override for override in overrides_list if not _is_value(override)]
        asked = (
            config_name,
            *(o.input_line for o in others),
            *(s.path for s in repo.get_sources()),
            *options.items(),
        )
        if asked not in lists:
            lists[asked] = listing(
                repo=repo, config_name=config_name, overrides_list=others, **options
            )
        found = lists[asked]
        return replace(found, config_overrides=[*found.config_overrides, *values])

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
    """Whether Hydra applies it to what is composed already: no choice of a group, none taken
    away.
    """
    key = override.key_or_group
    plain = not (
        override.is_add()
        or override.is_force_add()
        or override.is_delete()
        or override.is_sweep_override()
    )
    return "." in key or (plain and override.package is None and key not in (*GROUPS, "hydra"))
