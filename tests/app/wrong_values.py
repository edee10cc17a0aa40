"""Wrong values, keys, files and lines, made from the schema of the plain keys."""

from __future__ import annotations

import itertools
import types
import typing
from collections.abc import Iterator
from typing import Any

from tinyflux_pl.config import schema
from tinyflux_pl.config.bind import Keys
from tinyflux_pl.config.quoting import is_path, is_prose

# of each kind of value, what is none; a place takes any text, so that its wrong values stand in
# files
NUMBER = ("word", "nan", "[1]", "{a: 1}", "''", "true", "1e999", "-inf", "9" * 40)
WRONG: dict[Any, tuple[str, ...]] = {
    int: (*NUMBER, "1.5"),
    float: NUMBER,
    bool: ("maybe", "3", "[true]", "{a: 1}", "''", "nan"),
    str: ("5", "[x]", "{a: 1}", "true", "1.5"),
}
NESTED = {"data.sources": "shapes"}


def plain(kind: type[Keys], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, annotation) of every plain key of a script's schema."""
    for name, hint in typing.get_type_hints(kind).items():
        if name not in kind.__dataclass_fields__:
            continue
        key = f"{prefix}{name}"
        inner = typing.get_args(hint)[1] if typing.get_origin(hint) is dict else hint
        if isinstance(inner, type) and issubclass(inner, Keys):
            yield from plain(inner, f"{key}.{NESTED[key]}." if key in NESTED else f"{key}.")
        elif hint is not Any and inner is not Any and hint is not schema.Node:
            yield key, hint


def wrong(hint: Any) -> tuple[str, ...]:
    """Values that no member of an annotation allows."""
    # int | Literal is the latter
    union = typing.get_origin(hint) in (types.UnionType, typing.Union)
    members = typing.get_args(hint) if union else (hint,)
    kinds = {m for m in members if m in WRONG}
    if any(typing.get_origin(m) is typing.Literal for m in members):
        kinds.add(str)
    if not kinds:  # lists
        return ("word", "5", "{a: 1}", "[{a: 1}]", "''")
    shared = set.intersection(*(set(WRONG[kind]) for kind in kinds))
    return tuple(
        value
        for value in dict.fromkeys(itertools.chain(*(WRONG[k] for k in kinds)))
        if value in shared
    )


def values(script: str, each: int = 3) -> Iterator[str]:
    """`key=wrong` for every plain key of a script, `each` of its wrong values in turn.

    Null is one of them where it is not allowed.
    """
    for position, (key, hint) in enumerate(plain(schema.TASKS[script])):
        if (
            is_path(key)
            or is_prose(key)
            or key.endswith((".train", ".validation", "lora", "embedding"))
        ):
            continue
        offered = wrong(hint)
        yield from (
            f"{key}={offered[(position + i) % len(offered)]}"
            for i in range(min(each, len(offered)))
        )
        if type(None) not in typing.get_args(hint):
            yield f"{key}=null"


def slips(key: str) -> list[str]:
    """A key with a letter doubled, one left out, and two exchanged."""
    node, _, leaf = key.rpartition(".")
    start = f"{node}." if node else ""
    swapped = f"{leaf[0]}{leaf[2]}{leaf[1]}{leaf[3:]}" if len(leaf) > 2 else leaf
    typed = [leaf + leaf[-1], leaf[:-1], swapped]
    return [f"{start}{word}" for word in typed if word and word != leaf]


FILES = {  # as conf/experiment/odd.yaml, below its package
    "torn": "steps: [1, 2\n",
    "tabs": "callbacks:\n\tclip: 1\n",
    "twice": "steps: 1\nsteps: 2\n",
    "a list": "- steps\n- 3\n",
    "a word": "steps\n",
    "a number": "5\n",
    "an odd list of defaults": "defaults: 5\n",
    "defaults that name nothing": "defaults:\n  - model: nothing\nsteps: 3\n",
    "defaults without a choice": "defaults:\n  - {}\n",
    "a default of numbers": "defaults: [1, 2]\n",
    "an object": "steps: !!python/object/apply:os.getcwd []\n",
    "a date": "steps: 2020-01-01\n",
    "keys of numbers": "1: 2\n",
    "a key that is a list": "? [a, b]\n: 3\n",
    "a key that nothing reads": "stesp: 3\n",
    "a nested key that nothing reads": "data: {fold: 3}\n",
    "an unknown key of a node": "hardware: {batchsize: 3}\n",
    "itself": "steps: ${steps}\n",
    "a circle": "steps: ${seed}\nseed: ${steps}\n",
    "nothing there": "steps: ${nope}\n",
    "an unknown resolver": "steps: ${nope:3}\n",
    "an open interpolation": "steps: ${steps\n",
    "a variable that is not set": "steps: ${oc.env:NO_SUCH_VARIABLE}\n",
    "no hardware": "hardware: null\n",
    "hardware as a list": "hardware: [1]\n",
    "no paths": "paths: null\n",
    "paths as a word": "paths: here\n",
    "no data": "data: null\n",
    "data as a list": "data: [1]\n",
    "no sources": "data: {sources: null}\n",
    "sources as a word": "data: {sources: shapes}\n",
    "a source without a class": "data: {sources: {shapes: {train: {x: 1}}}}\n",
    "a model as a number": "model: 5\n",
    "a model without a class": "model: {_target_: null}\n",
    "a codec as a list": "codec: [1]\n",
    "no sampler": "sampler: null\n",
    "a guidance as a word": "guidance: strong\n",
    "experts as a list": "experts: [1]\n",
    "an expert that is a word": "experts: {lune: yes}\n",
    "a logger without a class": "logger: {mine: {x: 1}}\n",
    "a logger as a word": "logger: wandb\n",
    "an optimizer as a word": "optimizer: adam\n",
    "a schedule without a class": "schedule: null\n",
    "no callbacks": "callbacks: null\n",
    "callbacks as a list": "callbacks: []\n",
    "hydra as a number": "hydra: 5\n",
    "no hydra.run": "hydra: {run: null}\n",
    "a place of numbers": "paths: {root: 5}\n",
    "a run that is a list": "run: [a]\n",
    "a run with a NUL": 'run: "a\\0b"\n',
    "an empty run": 'run: ""\n',
    "a resume that is a number": "resume: 5\n",
    "a long number": f"steps: {'9' * 5000}\n",
    "a float beyond": "hardware: {batch_size: 1.0e+999}\n",
    "deep": f"steps: {'[' * 900}{']' * 900}\n",
}
