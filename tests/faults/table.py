"""The table of docs/reliability.md, from the figures that `make faults` has collected."""

from __future__ import annotations

import datetime
import json
import os
import platform
import sys
from pathlib import Path

START, END = "<!-- figures: written by `make faults` -->", "<!-- end of figures -->"
FAULTS = 32


def table(lines: list[dict]) -> str:
    """A row a fault, in the order of their numbers; a fault with several tests has several rows."""
    rows = ["| # | fault | held | note |", "|---|---|---|---|"]
    for line in sorted(lines, key=lambda found: (found["number"], found["fault"])):
        rows.append(f"| {line['number']} | {line['fault']} | {line['passed']}/{line['tried']} | {line['note']} |")
    return "\n".join(rows)


def main(figures: Path, document: Path) -> int:
    lines = [json.loads(line) for line in figures.read_text().splitlines()]
    missing = sorted(set(range(1, FAULTS + 1)) - {line["number"] for line in lines})
    date = datetime.date.today().isoformat()
    machine = f"{platform.machine()}, Python {platform.python_version()}"
    form = "`make faults`" if os.environ.get("FAULTS") == "full" else "The quick form, as `make test` runs it"
    said = f"{form}, {date}, {machine}, CPU." + (f" Not run: {missing}." if missing else "")
    text = document.read_text()
    before, after = text.split(START)[0], text.split(END)[1]
    document.write_text(f"{before}{START}\n{said}\n\n{table(lines)}\n{END}{after}")
    return 1 if missing or any(line["passed"] != line["tried"] for line in lines) else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
