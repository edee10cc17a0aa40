"""Pretrained encoders on disk: a transformers folder, its tokenizer, its hash."""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tinyflux_pl.core import hub
from tinyflux_pl.core.errors import CheckpointMismatch, ConfigError, HubError
from tinyflux_pl.core.files import sha256

FILES = ("model.safetensors", "model-*.safetensors", "*.json", "*.txt", "*.model")
DTYPES = ("float32", "bfloat16", "float16")


def locate(weights: str, revision: str | None, *subfolders: str) -> list[Path]:
    """The folders of a local or fetched release that hold an encoder and its tokenizer."""
    prefixes = [f"{folder}/" if folder else "" for folder in subfolders]
    root = hub.resolve(weights, revision, [f"{prefix}{file}" for prefix in prefixes for file in FILES])
    folders = [root / folder for folder in subfolders]
    for folder in folders:
        if not folder.is_dir():
            raise HubError(f"no folder {folder.name!r}", where=str(root), cure="check the subfolders of the encoder")
    return folders


def read_config(folder: Path) -> dict[str, Any]:
    """config.json; of a CLIP with two towers, its text tower's."""
    path = folder / "config.json"
    if not path.is_file():
        raise HubError("no config.json", where=str(folder), cure="give a folder in the transformers layout")
    config = json.loads(path.read_text())
    return config.get("text_config", config)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors that transformers will read: the shards of the index, or the one file."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    else:
        names = ["model.safetensors"]
    files = [folder / name for name in names]
    for file in files:
        if not file.is_file():
            raise HubError(f"no {file.name}", where=str(folder), cure="only safetensors weights are read: convert them")
    return files


def hash_of(folder: Path, tokenizer: Path) -> dict[str, str]:
    """sha256 of weights and of what decides the tokens, by file name."""
    vocabulary = [f for f in sorted(tokenizer.iterdir()) if f.suffix in (".json", ".txt", ".model")]
    vocabulary = [f for f in vocabulary if f.name not in ("config.json", "model.safetensors.index.json")]
    return {f.name: sha256(f) for f in (*weight_files(folder), *vocabulary)}


def load_tokenizer(folder: Path) -> Any:
    """The folder's own tokenizer, without network."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)


def load_encoder(kind: str, folder: Path, dtype: str, device: torch.device) -> Any:
    """A frozen transformers encoder; CheckpointMismatch if a weight is missing or of another shape.

    Weights that the encoder has no use for (T5's decoder, CLIP's image tower) may be in the file.
    """
    import transformers

    weight_files(folder)
    model, report = getattr(transformers, kind).from_pretrained(
        str(folder),
        dtype=getattr(torch, dtype),
        use_safetensors=True,
        local_files_only=True,
        output_loading_info=True,
    )
    wrong = sorted(map(str, report["missing_keys"])) + sorted(map(str, report["mismatched_keys"]))
    if wrong:
        raise CheckpointMismatch(
            f"{kind}: {len(wrong)} weights are missing or of another shape, first {wrong[:4]}",
            where=str(folder),
            cure="use config.json and weights of one release",
        )
    return model.to(device).eval().requires_grad_(False)


def tokenize(tokenizer: Any, prompts: Sequence[str], length: int) -> Any:
    """Token ids and mask padded to `length`; a longer prompt is cut, with a warning."""
    for prompt, ids in zip(prompts, tokenizer(list(prompts))["input_ids"], strict=True):
        if len(ids) > length:
            warnings.warn(f"a prompt of {len(ids)} tokens is cut at {length}: {prompt[:60]!r}", stacklevel=3)
    return tokenizer(list(prompts), padding="max_length", max_length=length, truncation=True, return_tensors="pt")


def check_dtype(dtype: str, where: str) -> None:
    """Raise ConfigError for a type that weights are not held in."""
    if dtype not in DTYPES:
        raise ConfigError(f"no dtype {dtype!r}", where=where, cure=f"one of {DTYPES}")
