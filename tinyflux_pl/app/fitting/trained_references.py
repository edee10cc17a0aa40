"""The number of reference pictures a network was trained with, for its checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyflux_pl.app.caches.sources import Source
from tinyflux_pl.cache.dataset import reference_keys
from tinyflux_pl.cache.store import ENCODINGS
from tinyflux_pl.checkpoints.description import config_of
from tinyflux_pl.checkpoints.reference_count import larger, recorded
from tinyflux_pl.config.schema import Train

if TYPE_CHECKING:
    from tinyflux_pl.checkpoints.directory import Checkpoint


def count(
    config: Train, sources: list[Source], denoiser: Any, checkpoint: Checkpoint | None
) -> int | None:
    """References per picture, in this run or in those that it continues.

    None where the weights that it started from do not say it.
    """
    here = max(len(reference_keys(source.train.store.layout(ENCODINGS))) for source in sources)
    return larger(here, _inherited_count(config, denoiser, checkpoint))


def _inherited_count(config: Train, denoiser: Any, checkpoint: Checkpoint | None) -> int | None:
    """The count of the weights that the run starts or continues from; 0 for new weights."""
    if checkpoint is not None:
        return recorded(checkpoint.config)
    if config.init is not None:
        init = Path(config.init).expanduser()
        return recorded(config_of(init)) if init.is_dir() else None
    released = config.model.get("weights") is not None
    return None if released and denoiser.reference_size is not None else 0
