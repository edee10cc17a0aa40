"""The learned words that `embedding=` names."""

from __future__ import annotations

from pathlib import Path


def parse_embeddings(embedding: str | list[str] | None) -> list[tuple[Path, str | None]]:
    """Path of each file, and the word to use instead of its own: FILE, or FILE:<word>."""
    if embedding is None:
        return []
    return [_split(entry) for entry in ([embedding] if isinstance(embedding, str) else embedding)]


def _split(entry: str) -> tuple[Path, str | None]:
    path, colon, word = entry.rpartition(":")
    if not colon or Path(entry).expanduser().exists():
        return Path(entry), None
    return Path(path), word
