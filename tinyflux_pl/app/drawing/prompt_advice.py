"""The prompts that a checkpoint was trained on: prompt=help, and notes on unfamiliar prompts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tinyflux_pl.app.reporting.report import shell
from tinyflux_pl.checkpoints.description import config_of
from tinyflux_pl.config.schema import Generate
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.printable import printable
from tinyflux_pl.data.training_captions import TrainingCaptions

MAX_WORDS = 60  # that the help lists
MAX_PROMPTS = 10  # that notes are made for


def show(config: Generate) -> None:
    """Print the checkpoint's description of its captions; its weights are not read."""
    if config.checkpoint is None:
        if config.model:
            print("a published model takes free text; its own page says what it was trained on")
            return
        what = "prompt=help describes the training prompts of a checkpoint"
        raise ConfigError(what, where="checkpoint", cure="checkpoint=FOLDER prompt=help")
    captions = captions_of(config.checkpoint)
    if captions is None:
        print("this checkpoint, of an earlier version, does not describe its captions")
        return
    for line in help_lines(captions):
        print(printable(line))


def help_lines(captions: TrainingCaptions) -> list[str]:
    """Grammar and examples of each source, then the words."""
    lines = []
    for name, source in captions.sources.items():
        lines.append(f"data {name}: {source.captions:,} training captions")
        lines.append(f"  prompts: {source.grammar or 'free text, like the captions'}")
        lines += [f"  {shell(f'prompt={example}')}" for example in source.examples]
    ordered = sorted(captions.words, key=lambda word: -captions.words[word])
    left = captions.distinct - MAX_WORDS
    more = f", and {left:,} more" if left > 0 else ""
    listed = ", ".join(ordered[:MAX_WORDS])
    return [*lines, f"words, the most frequent first: {listed}{more}"]


def notes(captions: TrainingCaptions | None, prompts: Sequence[str]) -> list[str]:
    """A note for each of the first prompts with words or a form that no training caption had."""
    if captions is None:
        return []
    lines = []
    for prompt in list(dict.fromkeys(prompts))[:MAX_PROMPTS]:
        problems = []
        if unseen := captions.unseen(prompt):
            never = "not among the training captions' words that are known"
            if captions.all_words:
                never = "in no training caption"
            problems.append(f"{never}: {', '.join(unseen)}")
        if objection := captions.objection(prompt):
            problems.append(objection)
        if problems:
            lines.append(f"{prompt!r}: {'; '.join(problems)}")
    if lines:
        lines.append("such pictures may be empty or wrong; prompt=help lists the training prompts")
    return lines


def captions_of(path: str | Path) -> TrainingCaptions | None:
    """The captions described in a checkpoint's config.json; None if it has none."""
    return TrainingCaptions.from_plain(config_of(path).get("captions"))
