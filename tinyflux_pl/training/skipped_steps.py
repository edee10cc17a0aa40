"""A record of skipped steps, their reasons and samples, and a bound on their number."""

from __future__ import annotations

import json
import logging
import math
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tinyflux_pl.core import files

log = logging.getLogger(__name__)
MAX_IDS = 16  # sample ids in a message
MAX_LOGGED = 3  # steps in one report
WINDOW = 1000  # steps over which max_recent counts


@dataclass(frozen=True)
class Verdict:
    """Mean loss and gradient norm of one step, with their limits.

    `optimizer` names the one that was judged, where a step has several.
    """

    step: int  # optimizer steps before it, as the random streams count
    sample_ids: list[int]
    loss: float
    norm: float
    loss_limit: float
    norm_limit: float
    optimizer: str = ""

    @property
    def reasons(self) -> list[str]:
        """Why the step was rejected; empty if it was not."""
        quantities = (
            ("loss", self.loss, self.loss_limit),
            ("gradient", self.norm, self.norm_limit),
        )
        reasons = []
        for name, value, limit in quantities:
            if not math.isfinite(value):
                reasons.append(f"{name} is {value}")
            elif abs(value) > limit:
                reasons.append(f"{name} {value:.4g} is above {limit:.4g}, its limit")
        return reasons

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data; non-finite numbers as strings."""
        values = asdict(self)
        for name, value in values.items():
            if isinstance(value, float) and not math.isfinite(value):
                values[name] = str(value)
        return {**values, "reasons": self.reasons}

    def __str__(self) -> str:
        ids = ", ".join(map(str, self.sample_ids[:MAX_IDS]))
        if len(self.sample_ids) > MAX_IDS:
            ids += ", ..."
        reasons = "; ".join(self.reasons)
        what = f"step {self.step}{self.optimizer and f' of the {self.optimizer}'} was skipped"
        return f"{what}: {reasons}. Its {len(self.sample_ids)} samples: {ids}"


class SkippedSteps:
    """Counts rejected steps against two bounds, logs them, and writes each as a line of `file`.

    `excess` is not empty once more than `max_consecutive` in a row, or more than `max_recent` of
    the last 1000, were rejected. `label` stands before each logged line.
    """

    label = ""

    def __init__(self, file: str | Path, max_consecutive: int = 10, max_recent: int = 50) -> None:
        self.file = Path(file)
        self.max_consecutive = max_consecutive
        self.max_recent = max_recent
        self._in_a_row: Counter[str] = Counter()  # by optimizer
        self.excess = ""
        self.recent: list[int] = []
        self.last: Verdict | None = None

    @property
    def consecutive(self) -> int:
        """The largest number of consecutive rejected steps of any optimizer, up to now."""
        return max(self._in_a_row.values(), default=0)

    def add(self, verdicts: list[Verdict], write: bool = True) -> None:
        """Add the verdicts of a window of steps, in order."""
        skipped = [v for v in verdicts if v.reasons]
        for verdict in verdicts:
            self._count(verdict)
        if skipped and write:
            for verdict in skipped[:MAX_LOGGED]:
                log.warning("%s%s", self.label, verdict)
            if len(skipped) > MAX_LOGGED:
                more = len(skipped) - MAX_LOGGED
                log.warning("%sand %d more steps were skipped: %s", self.label, more, self.file)
            self._write([*self._lines(), *(json.dumps(verdict.to_json()) for verdict in skipped)])

    def _count(self, verdict: Verdict) -> None:
        self.recent = [step for step in self.recent if step > verdict.step - WINDOW]
        if not verdict.reasons:
            self._in_a_row[verdict.optimizer] = 0
            return
        self._in_a_row[verdict.optimizer] += 1
        self.recent.append(verdict.step)
        self.last = verdict
        if self.consecutive > self.max_consecutive:
            count = f"{self.consecutive} steps in a row"
            self.excess = f"{count} were skipped, up to step {verdict.step}"
        elif len(self.recent) > self.max_recent:
            count = f"{len(self.recent)} of the last {WINDOW} steps"
            self.excess = f"{count} were skipped, up to step {verdict.step}"

    def reset_counts(self) -> None:
        """Start counting again: a run stopped for its skips may skip as many after it resumes."""
        self._in_a_row.clear()
        self.recent = []
        self.excess = ""

    def forget_after(self, step: int) -> None:
        """Drop the lines of steps from `step` on, which a resumed run repeats."""
        lines = self._lines()
        earlier = [line for line in lines if json.loads(line)["step"] < step]
        if earlier != lines:
            self._write(earlier)

    def state(self) -> dict[str, Any]:
        """Counts and the last verdict as plain data, for a checkpoint."""
        return {
            "consecutive": self.consecutive,
            "in_a_row": dict(self._in_a_row),
            "recent": list(self.recent),
            "excess": self.excess,
            "last": None if self.last is None else asdict(self.last),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        # older checkpoints have the number alone
        self._in_a_row = Counter(state.get("in_a_row", {"": state["consecutive"]}))
        self.recent = list(state["recent"])
        self.excess = state["excess"]
        self.last = None if state["last"] is None else Verdict(**state["last"])

    def _lines(self) -> list[str]:
        return self.file.read_text().splitlines() if self.file.exists() else []

    def _write(self, lines: list[str]) -> None:
        files.write_bytes(self.file, "".join(f"{line}\n" for line in lines).encode())
