"""The captions that a model was trained on: grammars, examples, word counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any

from tinyflux_pl.core.errors import CaptionError
from tinyflux_pl.text.hashed_words import words_of

MAX_WORDS = 10_000  # the most frequent ones are stored: some 150 KiB of a checkpoint
MAX_CAPTIONS = 100_000  # of a source that are counted, spread evenly over it
EXAMPLES = 6
HELP = "help"  # the prompt that asks which prompts there are
# modules with a `parse`, by the name of the records
PARSERS = {
    name: f"tinyflux_pl.data.tasks.{name}.grammar" for name in ("shapes", "scenes", "digits")
}


@dataclass(frozen=True)
class SourceCaptions:
    """Captions of one dataset: name, grammar ("" for free text), examples and their number."""

    records: str
    grammar: str
    examples: list[str]
    captions: int


@dataclass(frozen=True)
class TrainingCaptions:
    """Captions of every source by name, with counts of the most frequent words.

    `distinct` is the number of different words. Not `complete`: of a very long source only some of
    the captions were counted.
    """

    sources: dict[str, SourceCaptions]
    words: dict[str, int]
    distinct: int
    complete: bool = True

    @classmethod
    def of(cls, sources: Mapping[str, tuple[Any, list[str], int]]) -> TrainingCaptions:
        """From name -> (records, captions, their number before sampling)."""
        counts: Counter[str] = Counter()
        described = {}
        for name, (records, captions, total) in sources.items():
            for caption in captions:
                counts.update(words_of(caption))
            examples = list(
                dict.fromkeys(caption for caption in captions[: 20 * EXAMPLES] if caption)
            )[:EXAMPLES]
            described[name] = SourceCaptions(records.name, records.grammar, examples, total)
        complete = all(len(captions) == total for _, captions, total in sources.values())
        return cls(described, dict(counts.most_common(MAX_WORDS)), len(counts), complete)

    def plain(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_plain(cls, stored: Any) -> TrainingCaptions | None:
        """From a checkpoint's data; None for earlier versions and for data of another origin."""
        try:
            sources = {
                str(name): SourceCaptions(**source) for name, source in stored["sources"].items()
            }
            words = {str(word): int(count) for word, count in stored["words"].items()}
            captions = cls(sources, words, int(stored["distinct"]), bool(stored["complete"]))
        except (KeyError, TypeError, ValueError, AttributeError):
            return None
        return captions if all(_is_plain(source) for source in sources.values()) else None

    @property
    def all_words(self) -> bool:
        """True if `words` has every word of the captions."""
        return self.complete and self.distinct == len(self.words)

    def unseen(self, prompt: str) -> list[str]:
        """The prompt's words that are not among `words`, in order, each once."""
        return [word for word in dict.fromkeys(words_of(prompt)) if word not in self.words]

    def objection(self, prompt: str) -> str:
        """The reason why no training dataset has such captions; "" if one has, or has free text."""
        objections = [_objection(source.records, prompt) for source in self.sources.values()]
        return "" if "" in objections else "; ".join(dict.fromkeys(objections))


def readable(records: Any, prompts: Iterable[str]) -> list[str]:
    """Prompts that a dataset's verifier can read: all of free text, else those of its grammar."""
    return [prompt for prompt in prompts if not _objection(records.name, prompt)]


def _objection(name: str, prompt: str) -> str:
    if name not in PARSERS:
        return ""
    try:
        import_module(PARSERS[name]).parse(prompt)
    except CaptionError as error:
        return error.what
    return ""


def _is_plain(source: SourceCaptions) -> bool:
    texts = (
        [source.records, source.grammar, *source.examples]
        if isinstance(source.examples, list)
        else [None]
    )
    return all(isinstance(text, str) for text in texts) and isinstance(source.captions, int)
