"""Every key of a run, searchable, and what changed between its starts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tinyflux_pl.report.markup import Markup, join, tag
from tinyflux_pl.report.run_files import RunFiles

MAX_KEYS, MAX_LENGTH = 3000, 2000
OF_ONE_START = ("overrides", "flags", "from_step", "resume", "resume_changed", "preflight")


def section(run: RunFiles) -> Markup:
    """The table with its search field, and the changes of a resumed run."""
    if not run.config:
        return Markup()
    chosen = {line.lstrip("+~").partition("=")[0] for line in run.overrides}
    keys = list(flat(run.config))[:MAX_KEYS]
    rows = [
        tag(
            "tr",
            tag("td", key, class_="key-name"),
            tag("td", _value(value), class_="value"),
            class_="chosen" if _is_chosen(key, chosen) else None,
        )
        for key, value in keys
    ]
    search = tag(
        "input",
        type="search",
        data_search="keys",
        placeholder="search keys and values",
        aria_label="search keys and values",
    )
    count = tag("output", f"{len(keys)} keys")
    table = tag(
        "table",
        tag("thead", tag("tr", tag("th", "key"), tag("th", "value"))),
        tag("tbody", rows),
        id="keys",
    )
    note = tag("p", "● chosen on the command line. Secrets are masked.", class_="note")
    tall = tag("div", table, class_="tall", tabindex="0", role="region", aria_label="configuration")
    body = [tag("div", search, count, class_="controls"), tall, note]
    return join([tag("div", body, class_="card"), _changes(run.starts)])


def flat(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, plain value) of nested mappings, in order."""
    if isinstance(node, Mapping) and node:
        for name in sorted(node, key=str):
            yield from flat(node[name], f"{key}.{name}" if key else str(name))
    else:
        yield key, node


def _changes(starts: Sequence[Mapping[str, Any]]) -> Markup:
    """Keys that a later start gave another value."""
    rows = []
    for number in range(1, len(starts)):
        before, after = dict(flat(starts[number - 1])), dict(flat(starts[number]))
        step = starts[number].get("from_step", "?")
        rows += [
            tag(
                "tr",
                tag("td", f"start {number + 1}, from step {step}"),
                tag("td", key, class_="key-name"),
                tag("td", _value(before.get(key)), class_="value"),
                tag("td", _value(after.get(key)), class_="value"),
            )
            for key in sorted(before.keys() | after.keys())
            if before.get(key) != after.get(key) and key.partition(".")[0] not in OF_ONE_START
        ]
    if not rows:
        return Markup()
    head = tag("tr", tag("th", "start"), tag("th", "key"), tag("th", "before"), tag("th", "after"))
    table = tag("table", tag("thead", head), tag("tbody", rows))
    return join(
        [
            tag("h3", "Changed when the run was resumed"),
            tag("div", tag("div", table, class_="scroll"), class_="card"),
        ]
    )


def _is_chosen(key: str, chosen: set[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in chosen)


def _value(value: Any) -> str:
    written = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return written if len(written) <= MAX_LENGTH else f"{written[:MAX_LENGTH]} …"
