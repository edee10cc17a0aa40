"""Several processes that train one run: which one this is, and how the others wait for the first."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tinyflux_pl.app.caches import sources
from tinyflux_pl.app.parts import Parts
from tinyflux_pl.core import interpreter, interruption
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.data.cache_store import CacheStore

PAUSE = 0.5  # seconds between two looks at the caches


def first() -> bool:
    """Whether this process is rank 0, or alone: torchrun, Slurm and Lightning's launcher say it by variables."""
    if _number("SLURM_NTASKS", 1) > 1 and "SLURM_STEP_ID" in os.environ:  # started by srun
        return _number("SLURM_PROCID") == 0
    names = ("RANK",) if "RANK" in os.environ else ("NODE_RANK", "LOCAL_RANK")
    return all(_number(name) == 0 for name in names)


def _number(name: str, unset: int = 0) -> int:
    """A launcher's variable; ConfigError where it holds no number."""
    value = os.environ.get(name) or str(unset)
    try:
        return int(value)
    except ValueError as error:
        cure = f"a launcher sets it to the number of a process; without one: unset {name}"
        raise ConfigError(f"{name} is {value!r}", where="the environment", cure=cure) from error


def launcher() -> str:
    """What the command line of this process began with, as far as a launcher tells its ranks."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        one_node = os.environ.get("GROUP_WORLD_SIZE", "1") == "1"
        options = f"--nproc_per_node={os.environ['LOCAL_WORLD_SIZE']}" if one_node else "..."
        return f"torchrun {options} train.py"
    line = interpreter.command("train.py")
    return f"srun {line}" if "SLURM_STEP_ID" in os.environ else line


def prepared(parts: Parts, records: sources.Records | None = None) -> list[sources.Source]:
    """The run's sources, of `records` where they are built already.

    Rank 0 makes what the caches lack; the others wait until they lack nothing.

    Every rank must see the same folder of caches.
    """
    while not first() and _lacking(parts):
        interruption.poll()
        time.sleep(PAUSE)
    return sources.prepare(parts, records=records)


def _lacking(parts: Parts) -> list[Path]:
    """The stores that are not whole yet."""
    roots = [
        (Path(node["cache"]) / split, parts.groups(name)[split])
        for name, node in parts.config["data"]["sources"].items()
        for split in sources.SPLITS
    ]
    return [
        root
        for root, names in roots
        if not (root / "manifest.json").exists() or not all(CacheStore.open(root).complete(name) for name in names)
    ]
