"""Pretrained tokenizers: from a folder without network, checked against their encoder."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tinyflux_pl.core.errors import CheckpointMismatch, CorruptCheckpoint, HubError, UntrustedFile
from tinyflux_pl.core.types import PromptLength

VOCABULARIES = ("tokenizer.json", "spiece.model", "vocab.json", "vocab.txt")
LONGEST = 64 * 2**20  # bytes of a vocabulary
LEGACY_END = 2  # what CLIP's first config.json say of the end: it is then the highest id


def require_ids(folder: Path, rows: int, encoder: str) -> None:
    """Raise CheckpointMismatch for a tokenizer with ids beyond the embedding's `rows`."""
    highest = -1
    for name in ("tokenizer.json", "vocab.json", "added_tokens.json"):
        file = folder / name
        if file.is_file() and file.stat().st_size <= LONGEST:
            try:
                highest = max(highest, *_ids(json.loads(file.read_bytes())))
            except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
                what = f"not a vocabulary: {str(error)[:100]}"
                raise CorruptCheckpoint(what, where=str(file), cure="fetch it again") from error
    if highest >= rows:
        what = f"the tokenizer has ids up to {highest:,}, and {encoder} embeddings of {rows:,} only"
        raise CheckpointMismatch(what, where=str(folder), cure=_CURE)


def require_kind(tokenizer: Any, kind: str, config: Any, folder: Path) -> None:
    """Raise CheckpointMismatch for a tokenizer of another encoder, by end and padding tokens."""
    if tokenizer.pad_token is None:
        raise CheckpointMismatch(
            "the tokenizer has no padding token", where=str(folder), cure=_CURE
        )
    if kind.startswith("DistilBert"):
        ids = tokenizer("a")["input_ids"]
        if not ids or ids[-1] != tokenizer.sep_token_id or tokenizer.pad_token_id != 0:
            what = "the tokenizer ends no text with [SEP], or pads with another token than [PAD]"
            raise CheckpointMismatch(what, where=str(folder), cure=_CURE)
        return
    if not kind.startswith(("CLIP", "T5")):
        if not tokenizer.chat_template:
            raise CheckpointMismatch(
                f"no chat template for {kind} is asked by", where=str(folder), cure=_CURE
            )
        return
    ids = tokenizer("a")["input_ids"]
    end = config.eos_token_id
    if kind.startswith("CLIP") and end == LEGACY_END:
        end = max(ids, default=None)
    if not ids or ids[-1] != end:
        what = (
            f"the tokenizer ends a text with {ids[-1] if ids else 'nothing'}, {kind} expects {end}"
        )
        raise CheckpointMismatch(f"{what}: it is of another encoder", where=str(folder), cure=_CURE)


_CURE = "use encoder and tokenizer of one release"


def _ids(vocabulary_file: Any) -> list[int]:
    """The ids of a tokenizer.json, or of a table token -> id."""
    model = vocabulary_file.get("model")
    if not isinstance(model, dict):
        return [-1, *map(int, vocabulary_file.values())]
    vocabulary = model["vocab"]
    added = [int(token["id"]) for token in vocabulary_file.get("added_tokens") or ()]
    base_ids = vocabulary.values() if isinstance(vocabulary, dict) else (len(vocabulary) - 1,)
    return [-1, *map(int, base_ids), *added]


def load_tokenizer(folder: Path) -> Any:
    """Load a folder's tokenizer, without network."""
    from transformers import AutoTokenizer

    # transformers would make up an empty one
    if not any((folder / name).is_file() for name in VOCABULARIES):
        cure = f"put its tokenizer there: one of {', '.join(VOCABULARIES)}"
        raise HubError("no tokenizer", where=str(folder), cure=cure)
    try:
        return AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # the tokenizers' own library raises plain Exception
        if "trust_remote_code" in str(error):
            cure = "use a release whose tokenizer is transformers' own"
            raise UntrustedFile(
                "the tokenizer requires its own code", where=str(folder), cure=cure
            ) from error
        what = f"the tokenizer cannot be read: {str(error)[:200]}"
        raise CorruptCheckpoint(what, where=str(folder), cure="fetch it again") from error


def tokenize(tokenizer: Any, prompts: Sequence[str], length: int) -> Any:
    """Token ids and mask padded to `length`; a longer prompt is cut, with a warning."""
    for prompt, ids in zip(prompts, tokenizer(list(prompts))["input_ids"], strict=True):
        if len(ids) > length:
            warnings.warn(
                f"a prompt of {len(ids)} tokens is cut at {length}: {prompt[:60]!r}", stacklevel=3
            )
    return tokenizer(
        list(prompts), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    )


def prompt_lengths(
    tokenizer: Any, prompts: Sequence[str], length: int, special: bool = True
) -> list[PromptLength]:
    """Tokens of each prompt, a tokenizer's `special` ones among them: read, and beyond `length`."""
    special_count = len(tokenizer("", add_special_tokens=special)["input_ids"])
    token_ids = tokenizer(list(prompts), add_special_tokens=special)["input_ids"]
    counts = [len(ids) for ids in token_ids]
    return [
        PromptLength(min(n, length) if n > special_count else 0, max(n - length, 0)) for n in counts
    ]
