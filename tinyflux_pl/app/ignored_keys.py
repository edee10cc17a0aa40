"""Keys on the command line that the script does not read."""

from __future__ import annotations

from collections.abc import Sequence

from tinyflux_pl.core.errors import ConfigError


def refuse(overrides: Sequence[str], ignored: Sequence[str], what: str, cure: str) -> None:
    """Raise ConfigError if the command line sets one of the ignored groups or keys."""
    for line in overrides:
        key = line.lstrip("+~").partition("=")[0]
        if key in ignored or key.partition(".")[0].partition("@")[0] in ignored:
            raise ConfigError(f"{what} {key}", where=key, cure=f"leave it out; {cure}")
