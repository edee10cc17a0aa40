"""Configuration of pretrained text encoders: config.json or a given structure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tinyflux_pl.core.errors import (
    CheckpointMismatch,
    ConfigError,
    CorruptCheckpoint,
    HubError,
    UntrustedFile,
)
from tinyflux_pl.core.files import read_object
from tinyflux_pl.weights.dequantize import require_plain_config

PROJECTED_T5 = "T5EncoderWithProjection"
NEUTRAL = {  # what changes no number that an encoder gives: notes, training, generation
    *(
        "architectures",
        "model_type",
        "dtype",
        "torch_dtype",
        "transformers_version",
        "tie_word_embeddings",
    ),
    *(
        "attention_dropout",
        "dropout",
        "dropout_rate",
        "classifier_dropout",
        "hidden_dropout",
        "task_specific_params",
    ),
    *(
        "initializer_factor",
        "initializer_range",
        "use_cache",
        "bos_token_id",
        "pad_token_id",
        "decoder_start_token_id",
    ),
    *(
        "num_decoder_layers",
        "is_decoder",
        "is_encoder_decoder",
        "id2label",
        "label2id",
        "problem_type",
        "return_dict",
    ),
    *(
        "output_attentions",
        "output_hidden_states",
        "scalable_attention",
        "n_positions",
        "chunk_size_feed_forward",
    ),
}


def described(path: Path | None, structure: dict[str, Any] | None) -> dict[str, Any]:
    """An encoder's configuration: config.json of its folder, or `structure` without a folder."""
    if path is not None and path.is_dir():
        return read_config(path)
    if structure is None:
        cure = "give text.structures (text.structure), or a folder in transformers' layout"
        raise ConfigError(
            "a file alone does not say what its encoders are", where=str(path or "text"), cure=cure
        )
    return structure


def read_config(folder: Path) -> dict[str, Any]:
    """config.json; of a model with two towers, its text tower's."""
    path = folder / "config.json"
    if not path.is_file():
        raise HubError(
            "no config.json", where=str(folder), cure="give a folder in the transformers layout"
        )
    config = read_object(path)
    text_config = config.get("text_config", config)
    for key, value in (
        *config.items(),
        *(text_config.items() if isinstance(text_config, dict) else ()),
    ):
        if key == "transformers_weights" or (
            key.endswith("attn_implementation") and "/" in str(value)
        ):
            what = f"config.json leads to other files or code: {key} is {value!r}"
            raise UntrustedFile(
                what, where=str(path), cure=f"take {key} out if you trust the rest of the folder"
            )
    require_plain_config(config, folder)
    for described in (config, text_config):
        if isinstance(described, dict):
            described.pop("quantization_config", None)  # the weights tell more
    if not isinstance(text_config, dict):
        raise CorruptCheckpoint("text_config is no object", where=str(path), cure="fetch it again")
    return text_config


def width_key(kind: str) -> str:
    """The entry of a configuration that holds the width of a class of transformers."""
    if kind.startswith("T5"):
        return "d_model"
    return "dim" if kind.startswith("DistilBert") else "hidden_size"


def width_of(
    path: Path | None, key: str, encoder: str, structure: dict[str, Any] | None = None
) -> int:
    """The width that an encoder's description gives under `key`.

    CheckpointMismatch if it is another encoder's.
    """
    config = described(path, structure)
    config = config.get("text_config", config)
    if key not in config:
        what = (
            f"config.json describes {config.get('model_type', 'something without a type')}, not "
            f"{encoder}"
        )
        raise CheckpointMismatch(
            what, where=str(path or "text"), cure=f"give a folder or a repository of {encoder}"
        )
    return config[key]


def skeleton(kind: str, config: dict[str, Any]) -> Any:
    """An encoder without values, on the meta device, from what its config.json says.

    Of a chat model, `kind`, the tower that reads text: neither images nor the words that it would
    say are needed.
    """
    import transformers

    configuration = built(kind, config)
    with torch.device("meta"):
        if reads_chats(kind):
            return transformers.AutoModel.from_config(configuration)
        return network_class(kind)(configuration)


def network_class(kind: str) -> Any:
    """The class of transformers, or of a network that transformers lacks, of that name."""
    import transformers

    if kind == PROJECTED_T5:
        from tinyflux_pl.text.projected_t5 import T5EncoderWithProjection

        return T5EncoderWithProjection
    return getattr(transformers, kind)


def reads_chats(kind: str) -> bool:
    """True for a chat model's class, of which only the text tower is used."""
    return kind.endswith(("ForCausalLM", "ForConditionalGeneration"))


def built(kind: str, config: dict[str, Any]) -> Any:
    """transformers' configuration of the text tower, with its defaults filled in."""
    cls = network_class(kind).config_class
    entries = {
        key: value
        for key, value in config.items()
        if key not in ("model_type", "dtype", "torch_dtype")
    }
    try:
        if reads_chats(kind) and "text_config" not in entries:
            return type(cls().get_text_config())(**entries)
        return cls(**entries).get_text_config() if reads_chats(kind) else cls(**entries)
    except Exception as error:  # transformers' checks raise kinds of their own
        what = (
            f"not the structure of a {kind}: "
            f"{str(error).splitlines()[0][:200] if str(error) else 'it is empty'}"
        )
        cure = (
            "use config.json and weights of one release, or check text.structures (text.structure)"
        )
        raise ConfigError(what, where="the text encoder's configuration", cure=cure) from error


def deciding(kind: str, config: dict[str, Any]) -> dict[str, Any]:
    """Entries of a configuration that affect embeddings.

    That is all but NEUTRAL ones and those equal to the defaults. So a file that spells a default
    out is the file that leaves it out. The end's id tells CLIP where to pool, and others nothing.
    """
    config_object = built(kind, config)
    neutral = NEUTRAL if kind.startswith("CLIP") else NEUTRAL | {"eos_token_id"}
    defaults = type(config_object)().to_dict()
    entries = config_object.to_dict().items()
    deciding = {
        key: value for key, value in entries if key not in neutral and not key.startswith("_")
    }
    return {key: value for key, value in deciding.items() if value != defaults.get(key)}
