"""The rank of this process in a distributed run, from its launcher's variables."""

from __future__ import annotations

import os

from tinyflux_pl.core import interpreter
from tinyflux_pl.core.errors import ConfigError


def is_rank_zero() -> bool:
    """True on rank 0 and in a single process.

    Reads the variables of torchrun, Slurm and Lightning's launcher.
    """
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
    """The part of this process's command line that launchers pass to every rank."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        one_node = os.environ.get("GROUP_WORLD_SIZE", "1") == "1"
        options = f"--nproc_per_node={os.environ['LOCAL_WORLD_SIZE']}" if one_node else "..."
        return f"torchrun {options} train.py"
    line = interpreter.command("train.py")
    return f"srun {line}" if "SLURM_STEP_ID" in os.environ else line
