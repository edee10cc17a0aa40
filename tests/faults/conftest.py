"""Quick on every commit; FAULTS=full repeats as often as the specification asks (`make faults`)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import pytest

FULL = os.environ.get("FAULTS") == "full"


def times(quick: int, full: int) -> int:
    """Repetitions of a fault: `quick` on every commit, `full` in `make faults`."""
    return full if FULL else quick


@pytest.fixture
def figure() -> Callable[[int, str, int, int], None]:
    """Record the figures of a fault test, then assert them: figure(number, fault, passed, tried).

    `make faults` sets FAULTS_FIGURES to the file that docs/reliability.md's table is made from.
    """

    def record(number: int, fault: str, passed: int, tried: int, note: str = "") -> None:
        if path := os.environ.get("FAULTS_FIGURES"):
            line = {
                "number": number,
                "fault": fault,
                "passed": passed,
                "tried": tried,
                "note": note,
            }
            with open(path, "a") as lines:
                lines.write(json.dumps(line) + "\n")
        assert passed == tried, f"fault {number}, {fault}: {passed} of {tried}"

    return record
