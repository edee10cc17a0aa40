"""Isolation of sweep jobs: each job leaves the process state as it found it."""

from __future__ import annotations

import logging
import os
import random
import sys
import warnings
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import Any


@contextmanager
def isolated() -> Generator[None]:
    """Restore the process state after the block, so that jobs of a sweep do not affect each other.

    Restored are environment, working folder, warnings, logging levels, random generators and
    torch's settings. Torch is imported first: what it is set to by default is what every job starts
    with. A W&B run that the job began is ended with it, else the next job would write into the same
    run.
    """
    environment, folder = dict(os.environ), os.getcwd()
    levels = {name: logging.getLogger(name).level for name in list(logging.root.manager.loggerDict)}
    state, done = random.getstate(), False
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        stack.enter_context(_restored_torch_settings())
        try:
            yield
            done = True
        finally:
            _end_wandb(0 if done else 1)
            random.setstate(state)
            for name in [n for n in os.environ if n not in environment]:
                del os.environ[name]
            os.environ.update(environment)
            os.chdir(folder)
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)


@contextmanager
def _restored_torch_settings() -> Generator[None]:
    import numpy as np
    import torch

    numbers, threads = np.random.get_state(), torch.get_num_threads()
    dtype, matmul = torch.get_default_dtype(), torch.get_float32_matmul_precision()
    deterministic = torch.are_deterministic_algorithms_enabled()
    flags: dict[str, Any] = {
        name: getattr(torch.backends.cudnn, name) for name in ("benchmark", "deterministic")
    }
    anomaly = torch.is_anomaly_enabled()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        np.random.set_state(numbers)
        torch.set_num_threads(threads)
        torch.set_default_dtype(dtype)
        torch.set_float32_matmul_precision(matmul)
        torch.use_deterministic_algorithms(deterministic)
        torch.autograd.set_detect_anomaly(anomaly)
        for name, value in flags.items():
            setattr(torch.backends.cudnn, name, value)


def _end_wandb(code: int) -> None:
    wandb = sys.modules.get("wandb")
    if wandb is not None and getattr(wandb, "run", None) is not None:
        wandb.finish(exit_code=code)
