"""Checks of a composed configuration before the run: keys, values, folders. Needs no torch."""

from __future__ import annotations

import copy
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from tinyflux_pl.config import output_folders, schema, unused_keys
from tinyflux_pl.config.build import plain
from tinyflux_pl.core.errors import ConfigError


def check(jobs: Sequence[DictConfig], script: str, *, multirun: bool) -> list[dict[str, Any]]:
    """The jobs as plain containers.

    ConfigError for the first key, value or folder that a script cannot work with.
    """
    numbers: dict[Path, int] = {}
    first: DictConfig | None = None
    containers: list[dict[str, Any]] = []
    for number, config in enumerate(jobs):
        raw = cast(dict[str, Any], OmegaConf.to_container(config, resolve=False))
        unused_keys.check({key: value for key, value in raw.items() if key != "hydra"}, script)
        with with_job_values(config, number) as filled:
            if first is not None:  # one time for all: ${now:} is kept by each configuration
                OmegaConf.copy_cache(first, filled)
            folder = output_folders.job_folder(filled, multirun=multirun)
            first = first or copy.deepcopy(filled)
            with open_dict(filled):
                del filled["hydra"]
            job = plain(filled)
        schema.read_without_torch(job, cast(schema.Task, script))
        output_folders.check_job(job)
        if folder in numbers:
            what = f"jobs {numbers[folder]} and {number} of the sweep would share {folder}"
            cure = "leave hydra.sweep.subdir='${hydra.job.num}'"
            raise ConfigError(what, where="hydra.sweep.subdir", cure=cure)
        numbers[folder] = number
        containers.append(job)
    return containers


@contextmanager
def with_job_values(config: DictConfig, number: int = 0) -> Generator[DictConfig]:
    """A copy with the values that Hydra fills in when a job starts, for ${hydra:...}."""
    filled = copy.deepcopy(config)
    with open_dict(filled):
        filled.hydra.runtime.output_dir = "."
        filled.hydra.job.id, filled.hydra.job.num = str(number), number
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(filled)
    try:
        yield filled
    finally:
        HydraConfig.instance().cfg = before
