"""An untrained checkpoint in place of a stage's run, to check the stages after it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tinyflux_pl.app.components import Parts
    from tinyflux_pl.config.schema import Train


def write(parts: Parts[Train], run_dir: Path) -> None:
    """Write a checkpoint of step 0 as the stage's run will, with new weights."""
    from tinyflux_pl.checkpoints import directory

    network = parts.student()
    saved = parts.method.saved(network)
    weights = {name: tensor for name, tensor in network.state_dict().items() if name in saved}
    directory.save(
        run_dir / "checkpoints" / "step_0000000",
        step=0,
        config=parts.description(network, parts.image_size),
        weights=weights,
        averaged=None,
        state=None,
    )
