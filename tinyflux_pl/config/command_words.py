"""Flags and overrides as a user would type them again, to continue a run."""

from __future__ import annotations

import itertools
import shlex

from tinyflux_pl.config.quoting import quoted

CHOOSING = ("--config-path", "-cp", "--config-dir", "-cd", "--config-name", "-cn")
SWEEPING = ("-m", "--multirun")


def flags(argv: list[str], sweep: bool) -> list[str]:
    """The flags that choose the configuration, for one job of a `sweep` alone."""
    pairs = itertools.pairwise(argv)
    chosen = ((name, shlex.quote(value)) for name, value in pairs if name in CHOOSING)
    words = list(itertools.chain.from_iterable(chosen))
    by_file = sweep and not any(flag in SWEEPING for flag in argv)
    return [*words, "hydra.mode=RUN"] if by_file else words


def override(line: str) -> str:
    """An override as a user would type it in a shell.

    Quotes that `quoted` added are removed, quotes that the shell needs are added.
    """
    key, mark, value = line.partition("=")
    bare = value[1:-1].replace("\\'", "'").replace("\\\\", "\\") if value[:1] == "'" else value
    value = bare if quoted(f"{key}={bare}") == line else value
    return f"{key}={shlex.quote(value)}" if mark else line
