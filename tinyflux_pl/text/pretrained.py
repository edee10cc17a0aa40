"""Pretrained encoders on disk: a transformers folder, its tokenizer, its hash."""

import json
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from tinyflux_pl.core import hub
from tinyflux_pl.core.errors import CheckpointMismatch, ConfigError, CorruptCheckpoint, HubError
from tinyflux_pl.core.files import sha256

FILES = ("model.safetensors", "model-*.safetensors", "*.json", "*.txt", "*.model")
VOCABULARIES = ("tokenizer.json", "spiece.model", "vocab.json", "vocab.txt")
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
    try:
        config = json.loads(path.read_text())
    except ValueError as error:
        raise CorruptCheckpoint(f"not JSON: {error}", where=str(path), cure="fetch it again") from error
    return config.get("text_config", config)


def width_of(folder: Path, key: str, encoder: str) -> int:
    """The width that config.json gives under `key`; CheckpointMismatch if it describes another encoder."""
    config = read_config(folder)
    if key not in config:
        what = f"config.json describes {config.get('model_type', 'something without a type')}, not {encoder}"
        raise CheckpointMismatch(what, where=str(folder), cure=f"give a folder or a repository of {encoder}")
    return config[key]


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

    if not any((folder / name).is_file() for name in VOCABULARIES):  # transformers would make up an empty one
        cure = f"put its tokenizer there: one of {', '.join(VOCABULARIES)}"
        raise HubError("no tokenizer", where=str(folder), cure=cure)
    return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)


def load_encoder(kind: str, folder: Path, dtype: str, device: torch.device) -> Any:
    """A frozen transformers encoder; CheckpointMismatch if a weight is missing or of another shape.

    Weights that the encoder has no use for (T5's decoder, CLIP's image tower) may be in the file.
    """
    import transformers
    from safetensors import SafetensorError

    files = weight_files(folder)
    try:
        with _quiet():
            model, report = getattr(transformers, kind).from_pretrained(
                str(folder),
                dtype=getattr(torch, dtype),
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # judged below, by name
            )
    except SafetensorError as error:
        what = f"{files[0].name} is not a whole safetensors file: {error}"
        raise CorruptCheckpoint(what, where=str(folder), cure="fetch it again") from error
    shapes = (f"{key}: file {tuple(found)}, config.json {tuple(own)}" for key, found, own in report["mismatched_keys"])
    wrong = sorted(map(str, report["missing_keys"])) + sorted(shapes)
    if wrong:
        raise CheckpointMismatch(
            f"{kind}: {len(wrong)} weights are missing or of another shape, first {'; '.join(wrong[:4])}",
            where=str(folder),
            cure="use config.json and weights of one release",
        )
    return model.to(device).eval().requires_grad_(False)


@contextmanager
def _quiet() -> Generator[None]:
    """Without transformers' bars and its list of weights that this encoder has no use for."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


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
