"""Complete runs of a very small TinyFlux, interrupted where a test says, and compared."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.app.runs import SHAPES, run
from tests.faults.forks import Child
from tinyflux_pl.core import interruption
from tinyflux_pl.core.errors import Interrupted
from tinyflux_pl.core.metric_names import is_measured

# Intervals that share no step with the cuts of a test unless the test means it; six steps make an
# epoch.
SMALL = (
    *("model.hidden_size=32", "model.num_attention_heads=2", "model.attention_head_dim=16"),
    *("model.axes_dims_rope=[4,6,6]", "model.num_double_layers=1", "model.num_single_layers=1"),
    *("model.lune_hidden_dim=32", "model.sol_hidden_dim=32", "hardware.precision=32-true"),
    *("steps=40", "schedule.warmup_steps=5", "hardware.batch_size=8", "hardware.accumulation=2"),
    *("callbacks.checkpoint.every_steps=10", "callbacks.validation.every_steps=8"),
    *(
        "callbacks.preview.every_steps=12",
        "callbacks.preview.count=2",
        "callbacks.log_every_steps=5",
    ),
    *("preflight=false", "data.evaluation_prompts=2", "data.sources.shapes.validation.count=20"),
)

PATIENCE = 900.0  # seconds that a run may take: a busy machine is no fault


def warm() -> None:
    """Import what a run needs before children are forked."""
    import lightning.pytorch.loggers  # noqa: F401

    from tinyflux_pl.app.caches import sources  # noqa: F401
    from tinyflux_pl.data.tasks import prompt_accuracy  # noqa: F401
    from tinyflux_pl.extraction import encode  # noqa: F401
    from tinyflux_pl.training import logged_metrics, preview, validation  # noqa: F401


def training(
    root: Path,
    name: str,
    *overrides: str,
    before: Callable[[Path], Any] | None = None,
    ranks: dict[str, str] | None = None,
    through_command_line: bool = False,
) -> Callable[[], None]:
    """A complete run for a child: records its draws, and calls `before(run_dir)` first.

    `ranks` are the variables by which a launcher tells a process its rank. Through the command line
    the process ends as train.py does; otherwise the configuration is composed and its recipe
    called. `ranks` are the variables by which a launcher tells a process which rank it is. Through
    the command line, the process ends as train.py does; else the configuration is composed and its
    recipe called.
    """
    folder = root / "outputs" / name
    attempt = len(list(folder.glob("draws_*_0.jsonl")))

    def work() -> None:
        os.environ.update(ranks or {})
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"draws_{attempt:03d}_{os.environ.get('RANK', 0)}.jsonl"
        record_draws(file)
        if before is not None:
            before(folder)
        try:
            if through_command_line:
                from tinyflux_pl.app.cli import command_line

                chosen = [
                    *SHAPES,
                    "debug=fast",
                    "data.limit=null",
                    f"paths.root={root}",
                    *SMALL,
                    f"run={name}",
                    *overrides,
                ]
                sys.argv = ["train.py", *chosen]
                return command_line.run("train")
            with interruption.listening():
                run("train", root, *SMALL, f"run={name}", *overrides)
        except Interrupted as stop:
            print(stop)
            sys.exit(stop.exit_code)
        finally:
            _append(file, None)

    return work


def finished(root: Path, name: str, *overrides: str) -> Path:
    """The folder of a run that has come to its end."""
    folder = root / "outputs" / name
    log = root / f"{name}.log"
    with Child(training(root, name, *overrides), log) as child:
        ended = child.wait(PATIENCE)
    assert ended.code == 0, ended.printed[-3000:]
    return folder


def record_draws(file: Path) -> None:
    """Write the step and the sample ids of every micro-batch that this process draws.

    `training` ends the file with `null`, unless the process is killed.
    """
    from tinyflux_pl.objectives.flow import FlowObjective

    file.touch()
    loss = FlowObjective.loss

    def recorded(self: Any, denoiser: Any, batch: Any, step: int) -> Any:
        _append(file, [step, batch.sample_ids.tolist()])
        return loss(self, denoiser, batch, step)

    FlowObjective.loss = recorded


def draws(folder: Path) -> list[list[Any]]:
    """[step, sample ids of all ranks] of every micro-batch that counts, without repeated ones."""
    kept: list[list[Any]] = []
    for attempt in range(len(list(folder.glob("draws_*_0.jsonl")))):
        drawn = _side_by_side(sorted(folder.glob(f"draws_{attempt:03d}_*")))
        if drawn:
            kept = [line for line in kept if line[0] < drawn[0][0]] + drawn
    return kept


def _side_by_side(files: Sequence[Path]) -> list[list[Any]]:
    """An attempt's lines, of all ranks together.

    Ranks wait for each other at the end of every step. So only if one was killed may another have
    drawn more than it, and then only in one step, the one under way: those lines are left out, and
    as that step was not taken, they have to be drawn again.
    """
    ranks = [[json.loads(line) for line in file.read_text().splitlines()] for file in files]
    killed = any(lines[-1:] != [None] for lines in ranks)
    ranks = [[line for line in lines if line is not None] for lines in ranks]
    common = min(map(len, ranks))
    ahead = {line[0] for lines in ranks for line in lines[common:]}
    joint = list(zip(*(lines[:common] for lines in ranks), strict=True))
    assert all(len({step for step, _ in parts}) == 1 for parts in joint), (
        "ranks are not at the same step"
    )
    last = joint[-1][0][0] if joint else None
    assert not ahead or killed, (
        f"a rank that nothing killed has not drawn all of step {sorted(ahead)}"
    )
    assert len(ahead) <= 1 and (last is None or ahead <= {last, last + 1}), (
        f"a rank lacks the steps {sorted(ahead)}"
    )
    return [[parts[0][0], [i for part in parts for i in part[1]]] for parts in joint]


def _append(file: Path, value: Any) -> None:
    with open(file, "a") as lines:
        lines.write(json.dumps(value) + "\n")


def outcome(folder: Path, step: int = 40) -> dict[str, Any]:
    """Everything that must not depend on the interruption: hashes, log, images, results."""
    from tinyflux_pl.checkpoints import directory

    checkpoint = directory.read(folder / "checkpoints" / f"step_{step:07d}")
    with open(folder / "csv" / "metrics.csv", newline="") as file:
        log = [{k: v for k, v in row.items() if not is_measured(k)} for row in csv.DictReader(file)]
    results = json.loads((folder / "results.json").read_text())
    return {
        "weights": _digest(checkpoint.weights("raw")),
        "averages": _digest(checkpoint.weights("averaged")),
        "state": _digest(checkpoint.state()),
        "log": log,
        "draws": draws(folder),
        "pictures": {
            p.name: hashlib.sha256(p.read_bytes()).hexdigest()
            for p in (folder / "samples").glob("*.png")
        },
        "results": {
            k: results[k]
            for k in ("validation_loss", "accuracies", "steps", "prompts", "parameters")
        },
    }


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The names of what is not equal."""
    return [name for name in one if one[name] != other[name]]


def die(number: int = signal.SIGKILL) -> None:
    """Send this process a signal."""
    os.kill(os.getpid(), number)


def _digest(value: Any) -> str:
    import torch

    digest = hashlib.sha256()

    def add(node: Any) -> None:
        if isinstance(node, torch.Tensor):
            digest.update(
                f"{node.dtype}{tuple(node.shape)}".encode() + node.contiguous().numpy().tobytes()
            )
        elif isinstance(node, dict):
            for key in sorted(node, key=str):
                digest.update(str(key).encode())
                add(node[key])
        elif isinstance(node, list | tuple):
            for entry in node:
                add(entry)
        else:
            digest.update(repr(node).encode())

    add(value)
    return digest.hexdigest()
