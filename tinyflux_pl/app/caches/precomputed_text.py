"""Stored embeddings compared with those of the text encoder that the run names."""

from __future__ import annotations

import torch
from torch import Tensor

from tinyflux_pl.app.components import Parts
from tinyflux_pl.cache.cached_text import FIRST
from tinyflux_pl.cache.store import ENCODINGS
from tinyflux_pl.data.records.record_source import RecordSource

COMPARED = 2  # captions
TOLERANCE = 0.1  # of the norm: half precision and other kernels differ by a hundredth of it


@torch.inference_mode()
def text_note(parts: Parts, records: RecordSource) -> str:
    """A note if another encoder made the embeddings, or other captions; "" if they agree.

    The files do not name their encoder, and those of one architecture have the same shapes.
    """
    rows = [row for row in range(min(len(records), COMPARED)) if records[row].caption]
    if not rows:
        return ""
    captions = [records[row].caption for row in rows]
    stored = records.columns(ENCODINGS, rows)
    text = parts.text.to(parts.device)
    expected = text.encode(captions)
    text.free()
    mask = expected.mask.cpu()
    errors = {
        "tokens": _error(stored[f"{FIRST}.tokens"][mask], expected.tokens.cpu()[mask]),
        "pooled": _error(stored[f"{FIRST}.pooled"], expected.pooled.cpu()),
    }
    name, error = max(errors.items(), key=lambda item: item[1])
    if error <= TOLERANCE:
        return ""
    return (
        f"the stored text ({name}) differs by {error:.0%} from text={parts.text.name} for "
        f"{captions[0]!r}: if another encoder made it, name that one; previews and the null text "
        "are made with this one"
    )


def _error(stored: Tensor, expected: Tensor) -> float:
    """The norm of the difference relative to the norm of the expected embeddings."""
    expected = expected.float()
    return float((stored.float() - expected).norm() / expected.norm().clamp(min=1e-12))
