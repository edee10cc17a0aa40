"""The commands that draw from a run, resume it, and write this page again; each can be copied."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from tinyflux_pl.core.printable import printable
from tinyflux_pl.report.markup import Markup, tag
from tinyflux_pl.report.run_files import FINISHED, RunFiles

EXAMPLE = "a large red circle, top left"
PLAIN = re.compile(r"[\w@%+=:,./-]+", re.ASCII)


def section(run: RunFiles) -> Markup:
    """A row for each command that this folder allows."""
    lines = list(_lines(run))
    return tag("div", [command(*line) for line in lines], class_="card")


def command(label: str, line: str) -> Markup:
    """A command with its purpose and a copy button."""
    button = tag("button", "copy", type="button", class_="copy", aria_label=f"copy: {label}")
    return tag("div", tag("div", tag("p", label), tag("code", line)), button, class_="command")


def words(*parts: str) -> str:
    """A command line, each word quoted for a POSIX shell where it needs it."""
    return " ".join(_quoted(printable(part)) for part in parts)


def _lines(run: RunFiles) -> Iterable[tuple[str, str]]:
    if run.checkpoints:
        checkpoint = f"checkpoint={run.checkpoints[-1].path}"
        prompts = run.results.get("prompts")
        prompt = prompts[0] if isinstance(prompts, list) and prompts else EXAMPLE
        argument = run.results.get("ask")
        after_checkpoint = run.results.get("beside")
        picture_words = map(str, after_checkpoint) if isinstance(after_checkpoint, list) else ()
        condition = [str(argument)] if argument else [f"prompt={prompt}"]
        draw = ["python", "generate.py", checkpoint, *picture_words, *condition, "n=4", "seed=1"]
        yield "Draw four pictures", words(*draw)
        if not argument:
            yield (
                "List the prompts it was trained for",
                words("python", "generate.py", checkpoint, "prompt=help"),
            )
        yield _resume(run)
    else:
        yield "Start it again", words("python", "train.py", *_typed(run), _run_word(run))
    yield "Write this page again", words("python", "-m", "tinyflux_pl.report", str(run.folder))


def _resume(run: RunFiles) -> tuple[str, str]:
    typed = _typed(run)
    planned = run.config.get("steps")
    label = "Resume from the newest checkpoint, bit for bit"
    if run.state == FINISHED and isinstance(planned, int):
        typed = [word for word in typed if not word.lstrip("+").startswith("steps=")]
        typed.append(f"steps={2 * planned}")
        label = "Train on, to twice as many steps"
    return label, words("python", "train.py", *typed, _run_word(run), "resume=auto")


def _typed(run: RunFiles) -> list[str]:
    """The choices of the run as they were typed, without those of one start."""
    once = ("run=", "resume=", "preflight=", "run_dir=")
    return [line for line in run.overrides if not line.lstrip("+~").startswith(once)]


def _run_word(run: RunFiles) -> str:
    """run=NAME, for a job of a sweep the name of its folder below outputs/."""
    outputs: Any = run.get("paths", "outputs")
    folder = run.folder
    if isinstance(outputs, str):
        try:
            return f"run={folder.absolute().relative_to(folder.cwd() / outputs)}"
        except ValueError:
            pass
    return f"run={folder.name}"


def _quoted(word: str) -> str:
    if PLAIN.fullmatch(word):
        return word
    key, sign, value = word.partition("=")
    if sign and PLAIN.fullmatch(key) and not any(c in value for c in '"\\$`!\n'):
        return f'{key}="{value}"'
    return "'" + word.replace("'", "'\\''") + "'"
