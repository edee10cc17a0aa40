"""The interpreter in suggested commands: the one that runs this process."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

SCRIPTS = ("train.py", "extract.py", "generate.py")
# None: nobody said
_CHOICES: ContextVar[tuple[str, ...] | None] = ContextVar("choices", default=None)


def command(script: str) -> str:
    """First words of a command that runs `script` with this interpreter, relative if possible.

    The script lies where the running one does, as its command named it.
    """
    folder, running = os.path.split(sys.argv[0])
    path = os.path.join(folder, script) if running in SCRIPTS else script
    return f"{_interpreter()} {shlex.quote(path)}"


@contextmanager
def repeating_choices(words: Sequence[str]) -> Generator[None]:
    """Within the block, suggested extraction commands repeat the run's own words."""
    token = _CHOICES.set(tuple(words))
    try:
        yield
    finally:
        _CHOICES.reset(token)


def extraction(*more: str) -> str:
    """The command line that makes this run's caches, with `more` at its end."""
    choices = _CHOICES.get()
    words = ("(the choices of your run)",) if choices is None else choices
    return " ".join([command("extract.py"), *words, *more])


def _interpreter() -> str:
    if not sys.executable:  # embedded in another program
        return "python"
    here, path = Path(os.path.abspath(os.curdir)), Path(os.path.abspath(sys.executable))
    # not resolved: the python of a virtual environment is a link to another, which lacks its
    # packages
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))
