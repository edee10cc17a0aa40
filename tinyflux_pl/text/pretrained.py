"""Pretrained encoders on disk: what they are, their weights, their tokenizer, their hash."""

import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from tinyflux_pl.core.errors import CheckpointMismatch, ConfigError, CorruptCheckpoint, HubError, UntrustedFile
from tinyflux_pl.core.files import read_object, require_tensor_file
from tinyflux_pl.core.key_report import differences, listed
from tinyflux_pl.core.stored_weights import require_plain_config
from tinyflux_pl.core.weight_files import known_sha256
from tinyflux_pl.core.weight_folder import WeightFiles, weights_in
from tinyflux_pl.text import encoder_file

STEMS = ("model",)
VOCABULARIES = ("tokenizer.json", "spiece.model", "vocab.json", "vocab.txt")
DTYPES = ("float32", "bfloat16", "float16")


def described(place: Path | None, structure: dict[str, Any] | None) -> dict[str, Any]:
    """What an encoder is: by its folder's config.json, by `structure` where there is no folder."""
    if place is not None and place.is_dir():
        return read_config(place)
    if structure is None:
        cure = "give text.structures, or a folder in transformers' layout"
        raise ConfigError("a file alone does not say what its encoders are", where=str(place or "text"), cure=cure)
    return structure


def read_config(folder: Path) -> dict[str, Any]:
    """config.json; of a CLIP with two towers, its text tower's."""
    path = folder / "config.json"
    if not path.is_file():
        raise HubError("no config.json", where=str(folder), cure="give a folder in the transformers layout")
    config = read_object(path)
    told = config.get("text_config", config)
    for key, value in (*config.items(), *(told.items() if isinstance(told, dict) else ())):
        if key == "transformers_weights" or (key.endswith("attn_implementation") and "/" in str(value)):
            what = f"config.json leads to other files or code: {key} is {value!r}"
            raise UntrustedFile(what, where=str(path), cure=f"take {key} out if you trust the rest of the folder")
    require_plain_config(config, folder)
    if not isinstance(told, dict):
        raise CorruptCheckpoint("text_config is no object", where=str(path), cure="fetch it again")
    return told


def width_of(place: Path | None, key: str, encoder: str, structure: dict[str, Any] | None = None) -> int:
    """The width that an encoder's description gives under `key`; CheckpointMismatch if it is another encoder's."""
    config = described(place, structure)
    if key not in config:
        what = f"config.json describes {config.get('model_type', 'something without a type')}, not {encoder}"
        raise CheckpointMismatch(what, where=str(place or "text"), cure=f"give a folder or a repository of {encoder}")
    return config[key]


def weight_files(place: Path) -> WeightFiles:
    """The safetensors that will be read: a single file, or of a folder the shards of its index or the whole file."""
    found = WeightFiles((place,)) if place.is_file() else weights_in(place, STEMS)
    if found is None:
        cure = "only safetensors weights are read: convert them"
        raise HubError("no model.safetensors", where=str(place), cure=cure)
    for file in found.files:
        require_tensor_file(file)
    return found


def hash_of(place: Path, tokenizer: Path) -> dict[str, str]:
    """sha256 of weights and of what decides the tokens, by file name."""
    vocabulary = [f for f in sorted(tokenizer.iterdir()) if f.suffix in (".json", ".txt", ".model", ".jinja")]
    vocabulary = [f for f in vocabulary if f.name != "config.json" and ".safetensors.index." not in f.name]
    return {f.name: known_sha256(f) for f in (*weight_files(place).files, *vocabulary)}


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


def load_encoder(
    kind: str,
    place: Path,
    dtype: str,
    device: torch.device,
    part: str = "",
    structure: dict[str, Any] | None = None,
) -> Any:
    """A frozen transformers encoder; CheckpointMismatch if a weight is missing or of another shape.

    A folder may hold weights that the encoder has no use for (T5's decoder, CLIP's image tower); of a single file
    the keys of `part` must be this encoder's, all of them.
    """
    import transformers
    from safetensors import SafetensorError

    found, number = weight_files(place), getattr(torch, dtype)
    given: dict[str, Any] = {"pretrained_model_name_or_path": str(place), "variant": found.variant}
    if place.is_file():
        empty = skeleton(kind, described(place, structure))
        held = encoder_file.read(place, part, empty, number)
        given = {"pretrained_model_name_or_path": None, "config": empty.config, "state_dict": held}
        expected = {key: tuple(value.shape) for key, value in empty.state_dict().items()}
        told = differences(expected, {key: tuple(value.shape) for key, value in held.items()})
        if told:
            cure = "use a file and text.structures of one release"
            raise CheckpointMismatch(f"{kind}: {told}", where=str(place), cure=cure)
    else:
        read_config(place)
        if (place / "adapter_config.json").exists():
            cure = "merge the adapter into the weights, or remove its files"
            raise UntrustedFile("an adapter lies beside the weights", where=str(place), cure=cure)
    try:
        with _quiet():
            model, report = getattr(transformers, kind).from_pretrained(
                **given,
                dtype=number,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # judged below, by name
            )
    except SafetensorError as error:
        what = f"{found.files[0].name} is not a whole safetensors file: {error}"
        raise CorruptCheckpoint(what, where=str(place), cure="fetch it again") from error
    shapes = (f"{key}: file {tuple(found)}, config.json {tuple(own)}" for key, found, own in report["mismatched_keys"])
    wrong = dict.fromkeys([*map(str, report["missing_keys"]), *shapes], "")
    if wrong:
        what = f"{kind}: {len(wrong)} weights are missing or of another shape: {listed(wrong)}"
        raise CheckpointMismatch(what, where=str(place), cure="use config.json and weights of one release")
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
