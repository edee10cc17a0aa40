"""Draw a recorded picture again: alone, or in the batch that it was drawn in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tinyflux_pl.core import precision as formats
from tinyflux_pl.data.images.decode import decode
from tinyflux_pl.inference.batch_record import BatchRecord
from tinyflux_pl.inference.picture_folder import PictureFolder
from tinyflux_pl.inference.pipeline import Pipeline
from tinyflux_pl.sampling.picture import to_picture


def redrawn(
    pipeline: Pipeline, file: str, recorded: Mapping[str, Any], folder: str | Path
) -> tuple[Path, str]:
    """Draw what `recorded` describes into a folder; its path, and the comparison with `file`."""
    batch = BatchRecord.of(recorded, file)
    sampler = replace(pipeline.sampler, max_batch=batch.images)
    with formats.autocast(pipeline.precision, pipeline.device):
        batches = sampler.batches(
            pipeline.denoiser,
            batch.prompts,
            negative_prompt=recorded.get("negative_prompt"),
            indices=batch.indices,
            seed=recorded["seed"],
            only=batch.at,
        )
        image = next(batches)[batch.at % batch.images]
    picture = to_picture(image)
    entries = ("prompt", "negative_prompt", "seed", "index", "together")
    metadata = {
        **pipeline.description(),
        **{key: recorded[key] for key in entries if key in recorded},
    }
    path = PictureFolder(folder).add(picture, metadata)
    return path, _verdict(np.asarray(picture), decode(Path(file).expanduser()))


def _verdict(here: np.ndarray, before: np.ndarray) -> str:
    if here.shape != before.shape:
        return f"another size: {here.shape[1]} x {here.shape[0]}"
    difference = np.abs(here.astype(int) - before.astype(int))
    if not difference.any():
        return "the same picture, to the bit"
    share = float((difference > 0).mean())
    return f"{share:.2%} of the values differ, by at most {difference.max()} of 255"
