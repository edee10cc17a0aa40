"""Write the table of docs/reliability.md from the figures that `make faults` collected."""

from __future__ import annotations

import datetime
import json
import os
import platform
import sys
from pathlib import Path

START = "<!-- figures: written by `make faults` -->"
END = "<!-- end of figures -->"
FAULTS = 32


def table(lines: list[dict]) -> str:
    """One row for each figure, sorted by the number of the fault."""
    rows = ["| # | fault | held | note |", "|---|---|---|---|"]
    for line in sorted(lines, key=lambda line: (line["number"], line["fault"])):
        cells = (line["number"], line["fault"], f"{line['passed']}/{line['tried']}", line["note"])
        rows.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(rows)


def main(figures: Path, document: Path) -> int:
    """Update the document; 1 if a fault is missing or a figure is incomplete."""
    lines = [json.loads(line) for line in figures.read_text().splitlines()]
    missing = sorted(set(range(1, FAULTS + 1)) - {line["number"] for line in lines})
    date = datetime.date.today().isoformat()
    machine = f"{platform.machine()}, Python {platform.python_version()}"
    form = (
        "`make faults`"
        if os.environ.get("FAULTS") == "full"
        else "The quick form, as `make test` runs it"
    )
    summary = f"{form}, {date}, {machine}, CPU." + (f" Not run: {missing}." if missing else "")
    text = document.read_text()
    before = text.split(START)[0]
    after = text.split(END)[1]
    document.write_text(f"{before}{START}\n{summary}\n\n{table(lines)}\n{END}{after}")
    return 1 if missing or any(line["passed"] != line["tried"] for line in lines) else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
