"""`python -m tinyflux_pl.report FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

from tinyflux_pl.report.write import write_run_report

if __name__ == "__main__":
    print(write_run_report(Path(sys.argv[1])))
