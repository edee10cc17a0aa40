"""Which prompts a checkpoint was trained for: all of them on prompt=help, and what of a given one is new to it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tinyflux_pl.app.report import shell
from tinyflux_pl.checkpoints.description import config_of
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.printable import printable
from tinyflux_pl.data.training_captions import TrainingCaptions

WORDS, PROMPTS = 60, 10  # words that the help lists, prompts that are judged one by one


def show(config: dict[str, Any]) -> None:
    """Print what the checkpoint says of its captions; its weights are not read."""
    if config["checkpoint"] is None:
        if config["model"]:
            print("a published model takes free text; its own page says what it was trained on")
            return
        cure = "checkpoint=FOLDER prompt=help"
        raise ConfigError("prompt=help tells what a checkpoint was trained on", where="checkpoint", cure=cure)
    known = captions_of(config["checkpoint"])
    if known is None:
        print("this checkpoint does not say what its captions were: an earlier version wrote it")
        return
    for line in help_lines(known):
        print(printable(line))


def help_lines(known: TrainingCaptions) -> list[str]:
    """Source by source the grammar and examples, then the words."""
    found = []
    for name, source in known.sources.items():
        found.append(f"data {name}: {source.captions:,} training captions")
        found.append(f"  prompts: {source.grammar or 'free text, like the captions'}")
        found += [f"  {shell(f'prompt={example}')}" for example in source.examples]
    ordered = sorted(known.words, key=lambda word: -known.words[word])
    listed = ", ".join(ordered[:WORDS])
    more = f", and {known.distinct - WORDS:,} more" if known.distinct > WORDS else ""
    return [*found, f"words, the most frequent first: {listed}{more}"]


def notes(known: TrainingCaptions | None, prompts: Sequence[str]) -> list[str]:
    """A line for each of the first prompts that has words, or a form, which no training caption had."""
    found = []
    if known is None:
        return found
    for prompt in list(dict.fromkeys(prompts))[:PROMPTS]:
        new, objection = known.unseen(prompt), known.objection(prompt)
        never = "in no training caption" if known.all_words else "not among the training captions' words that are known"
        said = [f"{never}: {', '.join(new)}"] if new else []
        said += [objection] if objection else []
        if said:
            found.append(f"{prompt!r}: {'; '.join(said)}")
    if found:
        found.append("such pictures may be empty or odd; prompt=help lists what was trained")
    return found


def captions_of(path: str | Path) -> TrainingCaptions | None:
    """What a checkpoint keeps of its captions, from its config.json alone."""
    return TrainingCaptions.from_plain(config_of(path).get("captions"))
