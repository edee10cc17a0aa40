"""Files, hashes and weights of pretrained encoders, checked by their headers first."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from tinyflux_pl.core.errors import CheckpointMismatch, ConfigError, HubError, UntrustedFile
from tinyflux_pl.text import encoder_file
from tinyflux_pl.text.encoder_config import (
    built,
    described,
    reads_chats,
    skeleton,
    width_key,
    width_of,
)
from tinyflux_pl.text.tokenizer import load_tokenizer, require_ids, require_kind
from tinyflux_pl.weights.find_files import weights_in
from tinyflux_pl.weights.headers import known_sha256
from tinyflux_pl.weights.key_diff import differences, shapes_of
from tinyflux_pl.weights.tensor_files import require_weights
from tinyflux_pl.weights.weight_files import WeightFiles

STEMS = ("model",)
DTYPES = ("float32", "bfloat16", "float16")


def weight_files(path: Path, variant: str | None = None) -> WeightFiles:
    """The safetensors to read: a single file, or the shards or the whole file of a folder."""
    weights = (
        WeightFiles((path,)) if path.is_file() else weights_in(path, STEMS, variant, "text.variant")
    )
    if weights is None:
        cure = "only safetensors weights are read: convert them"
        raise HubError("no model.safetensors", where=str(path), cure=cure)
    for file in weights.files:
        require_weights(file)
    return weights


def hash_of(path: Path, tokenizer: Path, variant: str | None = None) -> dict[str, str]:
    """SHA-256 of weights and of the files that decide the tokens, by file name."""
    vocabulary = [
        f for f in sorted(tokenizer.iterdir()) if f.suffix in (".json", ".txt", ".model", ".jinja")
    ]
    vocabulary = [
        f for f in vocabulary if f.name != "config.json" and ".safetensors.index." not in f.name
    ]
    return {f.name: known_sha256(f) for f in (*weight_files(path, variant).files, *vocabulary)}


def tokenizer_for(
    kind: str, path: Path, folder: Path, structure: dict[str, Any] | None = None
) -> Any:
    """A folder's tokenizer; CheckpointMismatch if it is of another kind of encoder."""
    tokenizer = load_tokenizer(folder)
    require_kind(tokenizer, kind, built(kind, described(path, structure)), folder)
    return tokenizer


def require_encoder(
    kind: str,
    path: Path,
    tokenizer: Path,
    part: str,
    structure: dict[str, Any] | None = None,
    variant: str | None = None,
) -> None:
    """Check an encoder by file headers and its tokenizer by ids, before weights are read.

    Raises CheckpointMismatch for keys missing, unexpected, packed or of another shape, and for a
    tokenizer with ids that the encoder lacks, CorruptCheckpoint for a truncated file.
    """
    # of this kind
    _ = width_of(path, width_key(kind), kind, structure)
    empty = _empty(kind, path, structure)
    outlines = _encoder_weights(
        weight_files(path, variant).outlines(), path, part, empty, torch.float32
    )
    _require_match(kind, path, empty, outlines)
    require_ids(tokenizer, int(empty.get_input_embeddings().weight.shape[0]), kind)


def load_encoder(
    kind: str,
    path: Path,
    dtype: str,
    part: str = "",
    structure: dict[str, Any] | None = None,
    variant: str | None = None,
) -> Any:
    """A frozen transformers encoder, on the CPU.

    CheckpointMismatch if a weight is missing, unexpected or of another shape.

    A release may hold weights that the encoder has no use for (T5's decoder, CLIP's image tower),
    and no others.
    """
    number = getattr(torch, dtype)
    empty = _empty(kind, path, structure)
    stored = weight_files(path, variant).tensors(number)
    tensors = _encoder_weights(stored, path, part, empty, number)
    _require_match(kind, path, empty, tensors)
    with _quiet():
        model, report = type(empty).from_pretrained(
            None,
            config=empty.config,
            state_dict=tensors,
            dtype=number,
            local_files_only=True,
            output_loading_info=True,
        )
    cut = "norm.weight" not in empty.state_dict() and hasattr(model, "norm")
    if cut:
        model.norm = torch.nn.Identity()
    if lost := [
        key
        for key in (*report["missing_keys"], *report["mismatched_keys"])
        if not (cut and key == "norm.weight")
    ]:
        what = f"{kind}: not read: {', '.join(map(str, lost[:6]))}"
        raise CheckpointMismatch(
            what, where=str(path), cure="use config.json and weights of one release"
        )
    return model.eval().requires_grad_(False)


def _empty(kind: str, path: Path, structure: dict[str, Any] | None) -> Any:
    if path.is_dir() and (path / "adapter_config.json").exists():
        cure = "merge the adapter into the weights, or remove its files"
        raise UntrustedFile("an adapter is stored next to the weights", where=str(path), cure=cure)
    config = described(path, structure)
    text_config = config.get("text_config", config)
    layers = text_config.get("num_hidden_layers", 0)
    if not (path.is_file() and reads_chats(kind) and encoder_file.depth(path) < layers):
        return skeleton(kind, config)
    inner = {key: value for key, value in text_config.items() if key != "layer_types"}
    encoder = skeleton(kind, {**inner, "num_hidden_layers": encoder_file.depth(path)})
    encoder.norm = torch.nn.Identity()  # it normalises the last state, which is not there
    return encoder


def _encoder_weights(
    tensors: dict[str, Any], path: Path, part: str, empty: Any, dtype: torch.dtype
) -> dict[str, Any]:
    alone = path.is_file()
    prefix = (encoder_file.prefix_of(path, part) or "") if alone else ""
    return encoder_file.encoder_weights(
        tensors, part, empty, dtype, str(path), prefix=prefix, alone=alone
    )


def _require_match(kind: str, path: Path, empty: Any, actual: dict[str, Any]) -> None:
    expected = empty.state_dict()
    mismatch = differences(shapes_of(expected), shapes_of(actual))
    packed = [
        key for key, value in actual.items() if not value.is_floating_point() and key in expected
    ]
    if packed and not mismatch:
        mismatch = f"{packed[0]} is packed as {actual[packed[0]].dtype}"
    if mismatch:
        cure = "use a file and text.structures of one release" if path.is_file() else _CURE
        raise CheckpointMismatch(f"{kind}: {mismatch}", where=str(path), cure=cure)


_CURE = "use config.json and weights of one release"


@contextmanager
def _quiet() -> Generator[None]:
    """Silence transformers' progress bars and its list of unused weights."""
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


def check_dtype(dtype: str, where: str) -> None:
    """Raise ConfigError for an unknown dtype."""
    if dtype not in DTYPES:
        raise ConfigError(f"no dtype {dtype!r}", where=where, cure=f"choose {', '.join(DTYPES)}")
