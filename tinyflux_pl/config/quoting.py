"""Text and paths, quoted so that Hydra's grammar reads them literally."""

from __future__ import annotations

import os
import re

PROSE = frozenset(("prompt", "negative_prompt", "caption", "notes"))
# at the top level
PATHS = frozenset(
    (
        "checkpoint",
        "prompt_file",
        "condition",
        "output",
        "init",
        "resume",
        "replay",
        "run",
        "doctor",
    )
)
PATHS |= {"reference", "image", "mask", "from_image"}
FULL_PATHS = frozenset(("text.clip", "engine.prompts"))
LISTS = frozenset(("reference",))  # of paths, where the value is in brackets
NESTED_PATHS = frozenset(
    ("root", "folder", "path", "file", "directory", "checkpoint", "weights_file")
)
# pretrained parts, stores, a dataset's
NESTED_PATHS |= {"weights", "unet", "t5", "cache", "caption_file", "decoded"}
NESTED_PATHS |= {"calibrate", "calibration", "report"}  # of engine
_ASSIGNMENT = re.compile(r"(\+{0,2}[A-Za-z_][\w.]*)=(.*)", re.DOTALL)
_QUOTED = (
    re.compile(r"'(?:[^'\\]|\\.)*'", re.DOTALL),
    re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL),
)
_ITEM = re.compile(
    r"""('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^,]+)(?:,|$)"""
)  # of a list in brackets
_INTERPOLATION = re.compile(r"(\\*)\$\{")


def quoted(override: str, *, multirun: bool = False) -> str:
    """The override with a free-text value quoted for Hydra; any other override unchanged.

    A value that is one quoted string already, or null, stays. A sweep over texts is written
    choice("a", "b"), since a comma in a text is a comma. Prose never interpolates; paths may use
    ${...}, and begin with ~/, which no shell replaces behind an equals sign.
    """
    match = _ASSIGNMENT.fullmatch(override)
    if match is None or not (is_prose(match[1]) or is_path(match[1])):
        return override
    key, value = match.groups()
    if key.lstrip("+") in LISTS and value.startswith("[") and value.endswith("]"):
        return f"{key}=[{','.join(map(_quoted_once, _ITEM.findall(value[1:-1])))}]"
    stays = value == "null" or any(q.fullmatch(value) for q in _QUOTED)
    if stays or (multirun and value.startswith("choice(") and value.endswith(")")):
        return override
    if is_prose(key):  # n backslashes before ${ become 2n + 1: each escaped, and the ${ itself
        value = _INTERPOLATION.sub(lambda m: m[1] * 2 + r"\${", value)
    elif value.startswith("~/"):
        value = os.path.expanduser(value)
    return f"{key}={_in_quotes(value)}"


def is_prose(key: str) -> bool:
    """True if the last part of a dotted key names text written for a model or a reader."""
    return key.lstrip("+").rsplit(".", 1)[-1] in PROSE


def is_path(key: str) -> bool:
    """True if a dotted key names a file or folder."""
    key = key.lstrip("+")
    if "." not in key:
        return key in PATHS
    return key.rsplit(".", 1)[-1] in NESTED_PATHS or key.startswith("paths.") or key in FULL_PATHS


def _quoted_once(item: str) -> str:
    item = item.strip()
    return item if any(q.fullmatch(item) for q in _QUOTED) else _in_quotes(item)


def _in_quotes(text: str) -> str:
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(text=text, quote=Quote.single).with_quotes()
