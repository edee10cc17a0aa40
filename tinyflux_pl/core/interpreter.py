"""The commands that messages print: they begin with the interpreter that runs, as it would be typed here."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path


def command(script: str) -> str:
    """The start of a command line that runs `script` by this interpreter, relative where it lies below the folder."""
    return f"{_interpreter()} {script}"


def _interpreter() -> str:
    if not sys.executable:  # embedded in another program
        return "python"
    here, path = Path(os.path.abspath(os.curdir)), Path(os.path.abspath(sys.executable))
    # not resolved: the python of a virtual environment is a link to another, which lacks its packages
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))
