"""Which steps were not taken, why, with whose samples, and when there are too many."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tinyflux_pl.core import files

log = logging.getLogger(__name__)
NAMED, TOLD, RECENT = 16, 3, 1000  # sample ids in a message, steps in a report, steps that max_recent is about


@dataclass(frozen=True)
class Verdict:
    """What was found of one step: mean loss, gradient norm, and the most that each might be."""

    step: int  # steps taken before it: the draws' own number
    sample_ids: list[int]
    loss: float
    norm: float
    loss_limit: float
    norm_limit: float

    @property
    def reasons(self) -> list[str]:
        """Why the step was refused; empty if it was not."""
        found = []
        for name, value, limit in (("loss", self.loss, self.loss_limit), ("gradient", self.norm, self.norm_limit)):
            if not math.isfinite(value):
                found.append(f"{name} is {value}")
            elif abs(value) > limit:
                found.append(f"{name} {value:.4g} is above {limit:.4g}, its limit")
        return found

    def line(self) -> dict[str, Any]:
        """Plain JSON, in which what is not finite is a word."""
        numbers = {k: v if math.isfinite(v) else str(v) for k, v in asdict(self).items() if isinstance(v, float)}
        return {**asdict(self), **numbers, "reasons": self.reasons}

    def __str__(self) -> str:
        ids = ", ".join(map(str, self.sample_ids[:NAMED])) + (", ..." if len(self.sample_ids) > NAMED else "")
        return f"step {self.step} was skipped: {'; '.join(self.reasons)}. Its {len(self.sample_ids)} samples: {ids}"


class SkippedSteps:
    """Counts refused steps against two bounds, tells them, and writes each as a line of `file`.

    More than `max_consecutive` in a row, or more than `max_recent` of the last 1000, are too many.
    """

    def __init__(self, file: str | Path, max_consecutive: int = 10, max_recent: int = 50) -> None:
        self.file = Path(file)
        self.max_consecutive, self.max_recent = max_consecutive, max_recent
        self.consecutive, self.excess = 0, ""
        self.recent: list[int] = []
        self.last: Verdict | None = None

    def add(self, verdicts: list[Verdict], write: bool = True) -> None:
        """Take up a window of steps, in order."""
        skipped = [v for v in verdicts if v.reasons]
        for verdict in verdicts:
            self._count(verdict)
        if skipped and write:
            for verdict in skipped[:TOLD]:
                log.warning("%s", verdict)
            if len(skipped) > TOLD:
                log.warning("and %d more steps were skipped: %s", len(skipped) - TOLD, self.file)
            self._write([*self._lines(), *(json.dumps(verdict.line()) for verdict in skipped)])

    def _count(self, verdict: Verdict) -> None:
        self.recent = [step for step in self.recent if step > verdict.step - RECENT]
        if not verdict.reasons:
            self.consecutive = 0
            return
        self.consecutive += 1
        self.recent.append(verdict.step)
        self.last = verdict
        if self.consecutive > self.max_consecutive:
            self.excess = f"{self.consecutive} steps in a row were skipped, up to step {verdict.step}"
        elif len(self.recent) > self.max_recent:
            self.excess = f"{len(self.recent)} of the last {RECENT} steps were skipped, up to step {verdict.step}"

    def forgive(self) -> None:
        """Count anew: a run that was stopped for its skips, and is resumed, may skip as many again."""
        self.consecutive, self.recent, self.excess = 0, [], ""

    def forget_after(self, step: int) -> None:
        """Drop lines of steps that will be taken again, from `step` on."""
        lines = self._lines()
        kept = [line for line in lines if json.loads(line)["step"] < step]
        if kept != lines:
            self._write(kept)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        last = None if self.last is None else asdict(self.last)
        return {"consecutive": self.consecutive, "recent": list(self.recent), "excess": self.excess, "last": last}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.consecutive, self.recent, self.excess = state["consecutive"], list(state["recent"]), state["excess"]
        self.last = None if state["last"] is None else Verdict(**state["last"])

    def _lines(self) -> list[str]:
        return self.file.read_text().splitlines() if self.file.exists() else []

    def _write(self, lines: list[str]) -> None:
        files.write_bytes(self.file, "".join(f"{line}\n" for line in lines).encode())
