"""Files of learned words: one tensor (n, width) for each table of the text encoders.

Tables are named as AUTOMATIC1111 and diffusers' scripts name them (clip_l, clip_g, t5xxl); a file
for a single encoder may call its tensor emb_params, or by the word itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from tinyflux_pl.core import files
from tinyflux_pl.core.errors import CheckpointMismatch
from tinyflux_pl.text.learned_words import LearnedWord
from tinyflux_pl.weights.headers import metadata_of

NAME = "embedding.safetensors"
CURE = "give the embedding of a word for this text encoder"


def write(file: Path, learned: LearnedWord) -> None:
    """Write a word's vectors, with the word in the header."""
    tensors = {name: table.detach().cpu() for name, table in learned.tables.items()}
    files.write_tensors(file, tensors, {"word": learned.word})


def read(file: Path, widths: Mapping[str, int], word: str | None = None) -> LearnedWord:
    """The word of a file for an encoder with these tables, under its own name or `word`.

    Raises CheckpointMismatch for tensors of other encoders, UntrustedFile and CorruptCheckpoint as
    files.read_tensors does.
    """
    where, tensors = str(file), files.read_tensors(file)
    named = word or metadata_of(file).get("word") or file.stem
    if len(widths) == len(tensors) == 1:
        tensors = dict(zip(widths, tensors.values(), strict=True))
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    counts = {shape[0] for shape in shapes.values() if len(shape) == 2}
    expected = {name: (*counts, width) for name, width in widths.items()}
    if len(counts) != 1 or shapes != expected:
        raise CheckpointMismatch(
            f"it has vectors {shapes or 'of nothing'}, the text encoder's tables are "
            f"{dict(widths)} wide",
            where=where,
            cure=CURE,
        )
    if not all(bool(tensor.float().isfinite().all()) for tensor in tensors.values()):
        raise CheckpointMismatch("its vectors are not finite", where=where, cure="fetch it again")
    learned = LearnedWord(named, widths, counts.pop()).requires_grad_(False)
    _copy(learned, tensors)
    return learned


@torch.no_grad()
def _copy(learned: LearnedWord, tensors: Mapping[str, Tensor]) -> None:
    for name, table in learned.tables.items():
        table.copy_(tensors[name])
