"""`--help` of a script, from the comments in conf/, without composing a configuration."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

WIDTH = 100
NAME = 18  # columns of a key or a choice
_KEY = re.compile(r"^([a-z_]\w*):\s*(.*?)\s*(?:#\s*(.*))?$")
_DEFAULT = re.compile(r"^\s+- (?:override\s+)?/?([\w/]+)(?:@[\w.]+)?:\s*(\S+)")
FIRST = ("model", "data", "experts", "hardware")
AS_TRAINED = "as_trained"  # of generate.py alone
HIDDEN = ("task", "run_dir", "_self_", "hydra")
ENDING = """\
more
  --cfg job              every key with its value; with --package GROUP those of one group
  --multirun, -m         a run for each value of a list: -m seed=0,1,2 model=tiny,small
  --config-dir FOLDER    YAML files of your own, chosen like those of conf/
  A key of a group is set by its dotted name: optimizer.lr=1e-3. A wrong word is answered
  with the right one before anything is read. README.md and docs/ explain the rest."""


def help_page(script: str, folders: Sequence[Path]) -> str:
    """Help page of a script with configurations in `folders`; the first one holds its root."""
    lines = _text(folders[0] / f"{script}.yaml").splitlines()
    about = list(_head(lines))
    prose = [line for line in about if not line.startswith("python ")]
    examples = [line for line in about if line.startswith("python ")]
    parts = [f"usage: python {script}.py [GROUP=CHOICE ...] [KEY=VALUE ...]"]
    parts += ["\n".join(textwrap.wrap(" ".join(prose), WIDTH))] if prose else []
    parts += ["\n".join(["examples", *(f"  {line}" for line in examples)])] if examples else []
    keys = [_row(f"{key}={value}", word) for key, value, word in script_keys(lines)]
    parts += ["\n".join(["keys", *keys])] if keys else []
    parts.append("groups, and the choice of each that holds unless you name another")
    for group, chosen in sorted(
        groups(lines), key=lambda pair: FIRST.index(pair[0]) if pair[0] in FIRST else 9
    ):
        offered = [
            (name, word)
            for name, word in choices(folders, group)
            if name != AS_TRAINED or chosen == name
        ]
        title = (
            f"{group}={chosen}" if chosen != "null" else f"{group}=NAME, none unless you name one"
        )
        parts.append("\n".join([title, *(_row(name, word) for name, word in offered)]))
    return "\n\n".join([*parts, ENDING])


def script_keys(lines: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """(key, value, comment) of the plain keys of a root."""
    for line in lines:
        match = _KEY.match(line)
        if match is None or not match[2] or match[1] in HIDDEN:
            continue
        comment = match[3] or ""
        if not comment.startswith("not read"):
            yield match[1], match[2], comment


def groups(lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(group, default choice) of a root configuration, in its order.

    Groups that its comment marks as unread are left out.
    """
    for line in lines:
        match = _DEFAULT.match(line)
        if match and match[1] not in HIDDEN and "# not read" not in line:
            yield match[1], match[2]


def choices(folders: Sequence[Path], group: str) -> list[tuple[str, str]]:
    """(choice, its file's first words) of a group, sorted."""
    files = {
        file.stem: file for folder in folders for file in sorted((folder / group).glob("*.yaml"))
    }
    return [(name, _word(file)) for name, file in sorted(files.items())]


def _word(file: Path) -> str:
    head = list(_head(_text(file).splitlines()))
    return head[0].split(": python ")[0] if head else ""


def _head(lines: Sequence[str]) -> Iterator[str]:
    """The comment that a file begins with, without its package."""
    for line in lines:
        if not line.startswith("#"):
            return
        if (text := line.lstrip("# ").strip()) and not text.startswith("@package"):
            yield text


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _row(name: str, word: str) -> str:
    """Two columns, the second one wrapped."""
    if not word:
        return f"  {name}"
    first = f"  {name:<{NAME}} " if len(name) <= NAME else f"  {name}  "
    return textwrap.fill(word, WIDTH, initial_indent=first, subsequent_indent=" " * (NAME + 5))
