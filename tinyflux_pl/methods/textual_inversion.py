"""Textual inversion: only the vectors of a new word train, in every text encoder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.protocols import TextEncoder
from tinyflux_pl.methods import embedding_file
from tinyflux_pl.methods.base_precision import check_format
from tinyflux_pl.methods.method import Method
from tinyflux_pl.objectives.flow import FlowObjective
from tinyflux_pl.objectives.word_inversion import WordInversion
from tinyflux_pl.sampling.loop import SamplerSettings
from tinyflux_pl.text.learned_words import LearnedWord, WordReader

SUBMODULE = "learned_word"


class TextualInversion(Method):
    """A new word's vectors in every text encoder (Gal et al. 2022, 2208.01618).

    `word` is read as `vectors` tokens of each encoder, which begin as those of `init_word`, or of
    the word itself without < and >. The vectors lie in the denoiser as a submodule, so that they
    are averaged, saved and resumed like its weights; network and encoders are frozen. `widths` of
    the encoders' tables come from the run's text encoder, and from a checkpoint's description where
    there is none.
    """

    name = "textual_inversion"
    needs_base = True
    adds_to_base = True
    keeps_text = True
    reads_weights = ""
    unread: ClassVar[Mapping[str, str]] = {
        "text.sequential": "every step goes back through all encoders, which stay in memory"
    }

    def __init__(
        self,
        word: str,
        init_word: str | None = None,
        vectors: int = 1,
        widths: Mapping[str, int] | None = None,
        base_precision: str | None = None,
    ) -> None:
        self.base_precision = check_format(base_precision)
        if not word or word != word.strip() or " " in word:
            cure = "one word, such as method.word='<mug>'"
            raise ConfigError(f"the word is {word!r}", where="method.word", cure=cure)
        if vectors < 1:
            raise ConfigError(f"vectors is {vectors}", where="method.vectors", cure="at least 1")
        self.word, self.init_word, self.vectors = word, init_word, vectors
        self.widths = None if widths is None else dict(widths)
        self._text: WordReader | None = None
        self._learned: LearnedWord | None = None
        self._drawn: TextEncoder | None = None

    def set_text_encoder(self, text: TextEncoder) -> None:
        """Read the tables' widths of the run's text encoder; ConfigError if it has no words."""
        if not isinstance(text, WordReader):
            raise ConfigError(
                f"text={text.name} reads no words", where="method", cure="method=lora"
            )
        text.require_word(self.word)
        self._text, self.widths = text, text.word_widths()

    def prepare(self, denoiser: nn.Module) -> None:
        """Freeze the network, and add the word's vectors to it."""
        assert self.widths is not None, "from a text encoder or a description"
        denoiser.requires_grad_(False)
        self._learned = LearnedWord(self.word, self.widths, self.vectors)
        denoiser.add_module(SUBMODULE, self._learned)
        self._drawn = None
        is_outline = any(parameter.is_meta for parameter in self._learned.parameters())
        if self._text is not None and not is_outline:
            begin = self.init_word or self.word.strip("<>") or self.word
            self._learned.fill(self._text.word_vectors(begin))
            self._text.free()

    def free(self) -> None:
        """Free the encoders that use the word of the prepared network."""
        self._drawn = None

    def saved(self, denoiser: nn.Module) -> frozenset[str]:
        """The word's vectors alone."""
        return frozenset(name for name in denoiser.state_dict() if name.startswith(SUBMODULE))

    def objective(self, objective: FlowObjective, settings: SamplerSettings) -> FlowObjective:
        """The run's objective, with captions encoded in every step."""
        assert self._text is not None, "a run has a text encoder"
        text: Any = self.sampling_text(self._text)
        return WordInversion(objective, text)

    def sampling_text(self, text: TextEncoder) -> TextEncoder:
        """The encoder with the word of the network that was prepared last."""
        assert isinstance(text, WordReader) and self._learned is not None
        if self._drawn is None:  # one for objective and previews: encoders are large
            self._drawn = text.with_words([self._learned])
            if self._text is not None and self._drawn.sequential:
                self._drawn.sequential = False  # a run goes back through them at every step
        return self._drawn

    def export(self, denoiser: nn.Module, folder: Path) -> list[Path]:
        """Write the network's current vectors for generate.py and other programs."""
        file = folder / embedding_file.NAME
        learned: Any = denoiser.get_submodule(SUBMODULE)
        embedding_file.write(file, learned)
        return [file]

    def require_captions(self, captions: Iterable[str]) -> None:
        """Raise ConfigError if no caption has the word."""
        learned = LearnedWord(self.word, {}, 2)
        if not any(learned.expanded(caption) != caption for caption in captions):
            raise ConfigError(
                f"no caption has the word {self.word}",
                where="method.word",
                cure=f"write it into the captions: a photo of {self.word}",
            )

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        names = ("word", "init_word", "vectors", "widths")
        return {name: getattr(self, name) for name in names}
