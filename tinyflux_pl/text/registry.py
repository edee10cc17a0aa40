"""Name -> text encoder, for saved models."""

from typing import Any

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.protocols import TextEncoder
from tinyflux_pl.text.bezier_text import BezierText
from tinyflux_pl.text.clip import ClipText
from tinyflux_pl.text.clip_pair import ClipPairText
from tinyflux_pl.text.clip_t5 import ClipT5
from tinyflux_pl.text.distilbert import DistilBertText, TrainedDistilBert
from tinyflux_pl.text.distill_t5 import DistillT5
from tinyflux_pl.text.hashed_words import HashedWords
from tinyflux_pl.text.language_model import LanguageModelText
from tinyflux_pl.text.precomputed_tokens import PrecomputedTokens

_ALL = (
    HashedWords,
    PrecomputedTokens,
    ClipT5,
    DistillT5,
    ClipText,
    ClipPairText,
    LanguageModelText,
)
_ALL += (BezierText, DistilBertText, TrainedDistilBert)
ENCODERS: dict[str, Any] = {encoder.name: encoder for encoder in _ALL}


def build_text(name: str, config: dict[str, Any]) -> TextEncoder:
    """Rebuild the text encoder that was saved as (name, config())."""
    if name not in ENCODERS:
        raise ConfigError(
            f"unknown text encoder {name!r}",
            where="text",
            cure=f"choose {', '.join(sorted(ENCODERS))}",
        )
    try:
        return ENCODERS[name](**config)
    except TypeError as error:  # a key that the encoder does not know
        raise ConfigError(
            f"text {name!r}: {error}", where="text", cure="use the keys of its config()"
        ) from error
