"""The prompts of a command: one, or those of a file."""

from __future__ import annotations

from pathlib import Path

from tinyflux_pl.core.errors import CaptionError, ConfigError
from tinyflux_pl.data.records.caption_text import lines_of, text_of

MAX_BYTES = 2**26  # of a file of prompts


def read_prompts(prompt: str | None, prompt_file: str | Path | None) -> list[str]:
    """The prompt, or the non-empty lines of a UTF-8 file without a byte order mark."""
    if (prompt is None) == (prompt_file is None):
        raise ConfigError(
            "give a prompt or a file of prompts",
            where="prompt",
            cure='prompt="..." or prompt_file=FILE',
        )
    if prompt_file is None:
        return [str(prompt)]
    file = Path(prompt_file)
    if not file.is_file():
        raise CaptionError(
            f"no such file: {file}", where="prompt_file", cure="name a text file, one prompt a line"
        )
    lines = [line.strip() for line in lines_of(text_of(file.resolve(), MAX_BYTES))]
    if not any(lines):
        raise CaptionError(
            f"{file} holds no prompt", where="prompt_file", cure="write one prompt a line"
        )
    return [line for line in lines if line]
