"""Every combination of the swept values: Hydra's own sweep, with rows and a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser

from tinyflux_pl.app.sweeps import table
from tinyflux_pl.app.sweeps.launch import launch, require_success
from tinyflux_pl.core.rank import is_rank_zero


def sweep(sweeper: Any, arguments: list[str]) -> None:
    """Compose every job, launch them batch by batch, and print the table.

    Raises JobsFailed at the end if a job did not finish. `sweeper` is Hydra's BasicSweeper, set up.
    """
    parser = OverridesParser.create(config_loader=sweeper.hydra_context.config_loader)
    lines = [*sweeper._parse_config(), *arguments]
    batches = sweeper.split_arguments(parser.parse_overrides(lines), sweeper.max_batch_size)
    for batch in batches:
        sweeper.validate_batch_is_legal(batch)
    sweep_dir = Path(str(sweeper.config.hydra.sweep.dir))
    first = 0
    try:
        for batch in batches:
            launch(sweeper, dict(enumerate(batch, start=first)))
            first += len(batch)
    finally:
        collected = table.show(sweep_dir) if is_rank_zero() else []
    require_success(sweep_dir, collected)
