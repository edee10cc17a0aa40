"""Output streams that never fail to encode, and arguments decoded as text."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.printable import printable


def make_robust() -> None:
    """Write unencodable characters of a stream as escapes; replace a closed stream by a sink."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def decoded(argv: Sequence[str]) -> list[str]:
    """The arguments decoded as UTF-8 in any locale; ConfigError for invalid bytes."""
    texts = []
    for argument in argv:
        try:
            texts.append(
                os.fsencode(argument).decode("utf-8") if not argument.isascii() else argument
            )
        except UnicodeError as error:
            cure = "type it in a UTF-8 terminal; rename a file whose name is in another encoding"
            raise ConfigError(
                f"not UTF-8 text: {printable(argument)}", where="the command line", cure=cure
            ) from error
    return texts
