"""Pretrained encoders on disk: a transformers folder, its tokenizer, its hash."""

import json
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from tinyflux_pl.core import hub
from tinyflux_pl.core.errors import CheckpointMismatch, ConfigError, CorruptCheckpoint, HubError, UntrustedFile
from tinyflux_pl.core.files import require_tensor_file
from tinyflux_pl.core.weight_files import known_sha256

FILES = ("model.safetensors", "model-*.safetensors", "*.json", "*.txt", "*.model")
VOCABULARIES = ("tokenizer.json", "spiece.model", "vocab.json", "vocab.txt")
DTYPES = ("float32", "bfloat16", "float16")


def locate(weights: str, revision: str | None, *subfolders: str) -> list[Path]:
    """The folders of a local or fetched release that hold an encoder and its tokenizer."""
    prefixes = [f"{folder}/" if folder else "" for folder in subfolders]
    root = hub.resolve(weights, revision, [f"{prefix}{file}" for prefix in prefixes for file in FILES])
    if root.is_file():
        cure = "release.weights=FOLDER of the whole pipeline, or a folder for each encoder: text.t5, text.clip, ..."
        raise HubError("a file holds no text encoder with its tokenizer", where=str(root), cure=cure)
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
    config = _object(path)
    told = config.get("text_config", config)
    for key, value in (*config.items(), *(told.items() if isinstance(told, dict) else ())):
        if key == "transformers_weights" or (key.endswith("attn_implementation") and "/" in str(value)):
            what = f"config.json leads to other files or code: {key} is {value!r}"
            raise UntrustedFile(what, where=str(path), cure=f"take {key} out if you trust the rest of the folder")
    if not isinstance(told, dict):
        raise CorruptCheckpoint("text_config is no object", where=str(path), cure="fetch it again")
    return told


def _object(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object; CorruptCheckpoint for anything else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CorruptCheckpoint(f"not JSON: {error}", where=str(path), cure="fetch it again") from error
    if not isinstance(found, dict):
        raise CorruptCheckpoint("not a JSON object", where=str(path), cure="fetch it again")
    return found


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
    names = ["model.safetensors"]
    if index.is_file():
        shards = _object(index).get("weight_map")
        names = sorted({str(name) for name in shards.values()}) if isinstance(shards, dict) else []
        odd = [name for name in names if Path(name).name != name or not name.endswith(".safetensors")]
        if odd or not names:
            what = f"names {odd[0]!r} as weights" if odd else "names no weights"
            raise UntrustedFile(f"{index.name} {what}", where=str(folder), cure="only safetensors beside it are read")
    files = [folder / name for name in names]
    for file in files:
        if not file.is_file():
            raise HubError(f"no {file.name}", where=str(folder), cure="only safetensors weights are read: convert them")
        require_tensor_file(file)
    return files


def hash_of(folder: Path, tokenizer: Path) -> dict[str, str]:
    """sha256 of weights and of what decides the tokens, by file name."""
    vocabulary = [f for f in sorted(tokenizer.iterdir()) if f.suffix in (".json", ".txt", ".model")]
    vocabulary = [f for f in vocabulary if f.name not in ("config.json", "model.safetensors.index.json")]
    return {f.name: known_sha256(f) for f in (*weight_files(folder), *vocabulary)}


def load_tokenizer(folder: Path) -> Any:
    """The folder's own tokenizer, without network."""
    from transformers import AutoTokenizer

    if not any((folder / name).is_file() for name in VOCABULARIES):  # transformers would make up an empty one
        cure = f"put its tokenizer there: one of {', '.join(VOCABULARIES)}"
        raise HubError("no tokenizer", where=str(folder), cure=cure)
    try:
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the tokenizers' own library raises plain Exception
        if "trust_remote_code" in str(error):
            cure = "use a release whose tokenizer is transformers' own"
            raise UntrustedFile("the tokenizer brings code of its own", where=str(folder), cure=cure) from error
        what = f"the tokenizer cannot be read: {str(error)[:200]}"
        raise CorruptCheckpoint(what, where=str(folder), cure="fetch it again") from error


def load_encoder(kind: str, folder: Path, dtype: str, device: torch.device) -> Any:
    """A frozen transformers encoder; CheckpointMismatch if a weight is missing or of another shape.

    Weights that the encoder has no use for (T5's decoder, CLIP's image tower) may be in the file.
    """
    import transformers
    from safetensors import SafetensorError

    files = weight_files(folder)
    read_config(folder)
    if (folder / "adapter_config.json").exists():
        cure = "merge the adapter into the weights, or remove its files"
        raise UntrustedFile("an adapter lies beside the weights", where=str(folder), cure=cure)
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


def skeleton(kind: str, config: dict[str, Any]) -> Any:
    """An encoder without values, on the meta device, from what its config.json says."""
    import transformers

    cls = getattr(transformers, kind)
    with torch.device("meta"):
        return cls(cls.config_class(**{key: value for key, value in config.items() if key != "model_type"}))


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
