"""Runs one benchmark by name: python -m benchmarks NAME."""

from __future__ import annotations

import importlib
import sys

from tinyflux_pl.core.console_log import warnings_above_bars

NAMES = (
    "bezier",
    "counting",
    "engine",
    "engine_plans",
    "extraction",
    "folding",
    "learning",
    "main_job",
    "relations",
    "velocity_storage",
)


@warnings_above_bars()
def main(arguments: list[str]) -> int:
    """Run the benchmark that the first argument names; the others are its own."""
    if not arguments or arguments[0] not in NAMES:
        print(f"usage: python -m benchmarks NAME, one of: {', '.join(NAMES)}", file=sys.stderr)
        return 2
    return importlib.import_module(f"benchmarks.{arguments[0]}").main(arguments[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
