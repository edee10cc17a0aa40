"""Reads .wandb files of offline W&B runs: LevelDB's log format around protobuf records."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2 as messages

PREAMBLE, BLOCK, HEADER = 7, 32768, struct.Struct("<IHB")
FULL, FIRST, LAST = 1, 2, 4


@dataclass
class Recorded:
    """One run of W&B, as its file holds it."""

    id: str = ""
    name: str = ""
    group: str = ""
    job_type: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    exit_code: int | None = None
    preempting: bool = False
    artifacts: list[dict[str, Path]] = field(default_factory=list)  # entries -> staged files

    @property
    def logged(self) -> set[str]:
        """The names in the history, without W&B's and Lightning's own."""
        names = {name for row in self.history for name in row}
        return {name for name in names if not name.startswith(("_", "trainer/"))}

    def curve(self, name: str) -> list[tuple[int, Any]]:
        """(step, value) of every row that has the name."""
        return [(row["trainer/global_step"], row[name]) for row in self.history if name in row]


def recorded(file: Path) -> Recorded:
    """The run in a .wandb file."""
    run = Recorded()
    for content in _records(file.read_bytes()):
        record = messages.Record()
        record.ParseFromString(content)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run.id, run.name = record.run.run_id, record.run.display_name
            run.group, run.job_type = record.run.run_group, record.run.job_type
            run.tags = list(record.run.tags)
            run.config |= _values(record.run.config.update)
        elif kind == "config":
            run.config |= _values(record.config.update)
        elif kind == "summary":
            run.summary |= _values(record.summary.update)
        elif kind == "history":
            run.history.append(_values(record.history.item))
        elif kind == "exit":
            run.exit_code = record.exit.exit_code
        elif kind == "preempting":
            run.preempting = True
        elif kind == "artifact":
            contents = record.artifact.manifest.contents
            run.artifacts.append({entry.path: Path(entry.local_path) for entry in contents})
    return run


def recorded_below(folder: Path) -> list[Recorded]:
    """Every run below a folder, in the order of their files."""
    return [recorded(file) for file in sorted(folder.rglob("*.wandb"))]


def _values(items: Any) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for item in items:
        value = json.loads(item.value_json)
        name, *inner = [item.key] if item.key else item.nested_key
        if inner:
            values.setdefault(name, {})["/".join(inner)] = value
        else:
            values[name] = value
    return values


def _records(content: bytes) -> Iterator[bytes]:
    position, pending = PREAMBLE, b""
    while position + HEADER.size <= len(content):
        left = BLOCK - position % BLOCK
        if left < HEADER.size:
            position += left
            continue
        _, length, kind = HEADER.unpack_from(content, position)
        position += HEADER.size
        if kind == 0:
            return
        part = content[position : position + length]
        position += length
        pending = part if kind in (FULL, FIRST) else pending + part
        if kind in (FULL, LAST):
            yield pending
