"""Learned words for sampling: from a file, or from the folder of the run that trained one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tinyflux_pl.core.errors import CheckpointMismatch, ConfigError
from tinyflux_pl.inference.pipeline import Pipeline
from tinyflux_pl.methods import embedding_file
from tinyflux_pl.text.learned_words import WordReader
from tinyflux_pl.weights.headers import known_sha256

DIGITS = 16  # of the content's hash


def with_embeddings(pipeline: Pipeline, chosen: Sequence[tuple[Path, str | None]]) -> Pipeline:
    """The pipeline whose text encoder reads the learned words of these files.

    A word goes by another name where one is given. Raises ConfigError for a text encoder without
    words and for a word that is given twice, and as methods.embedding_file.read does.
    """
    if not chosen:
        return pipeline
    text = pipeline.sampler.text
    if not isinstance(text, WordReader):
        cure = "leave embedding= out"
        raise ConfigError(f"text={text.name} reads no words", where="embedding", cure=cure)
    widths = text.word_widths()
    named = [(_file_in(path), name) for path, name in chosen]
    words = [embedding_file.read(file, widths, name) for file, name in named]
    names = [word.word for word in (*text.words, *words)]
    if twice := next((word for word in names if names.count(word) > 1), None):
        cure = "embedding=[FILE:<one>,FILE:<other>] gives other names"
        raise ConfigError(f"the word {twice} is given twice", where="embedding", cure=cure)
    described: list[dict[str, Any]] = [
        {"word": word.word, "content": known_sha256(file)[:DIGITS]}
        for word, (file, _) in zip(words, named, strict=True)
    ]
    sampler = replace(pipeline.sampler, text=text.with_words(words))
    return replace(pipeline, sampler=sampler).with_metadata(embedding=described)


def _file_in(path: Path) -> Path:
    path = path.expanduser()
    for file in (path, path / embedding_file.NAME):
        if file.is_file():
            return file
    cure = f"name a .safetensors file, or a run's folder with {embedding_file.NAME}"
    raise CheckpointMismatch("no embedding found", where=str(path), cure=cure)
