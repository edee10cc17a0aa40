"""Console reports: short tables, notes, and the paths of files."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyflux_pl.app.reporting import tables
from tinyflux_pl.app.run_folder import configurations, record_start
from tinyflux_pl.config.redact import redact_data
from tinyflux_pl.core import files, interpreter
from tinyflux_pl.data.training_captions import HELP
from tinyflux_pl.engine.memory_plan import CONTEXT, MemoryPlan, size

if TYPE_CHECKING:
    from tinyflux_pl.app.caches.sources import Source
    from tinyflux_pl.app.memory.inference_memory import GenerationPlan
    from tinyflux_pl.app.memory.training_plan import TrainingPlan
    from tinyflux_pl.config.diff import Change
    from tinyflux_pl.config.schema import Train

SPLIT_NOTES = {  # for the prompts of the final evaluation
    "held_out": ", in combinations never seen in training",
    "short": ", for short prompts that leave something open",
}
MAX_SKIPPED = 10  # skipped files that a table names


def save_configuration(config: Train, step: int) -> None:
    """Store the configuration in the run's folder with its first step; earlier ones stay."""
    folder = Path(config.run_dir)
    number = max(configurations(folder), default=-1) + 1
    file = folder / (f"config_{number}.json" if number else "config.json")
    files.write_json(file, redact_data({**config.plain, "from_step": step}))
    record_start(folder)


def parameters(total: int, trained: int) -> str:
    """Print the number of parameters, and of the trained ones if they are a part."""
    return f"{total:,} parameters" + (f", {trained:,} of them trained" if trained < total else "")


def changes(changed: Sequence[Change]) -> None:
    """Print the keys that differ from the last start, and their effect on the run."""
    if not changed:
        return
    rows = [(c.key, f"{c.then} -> {c.now}; this changes {c.effect}") for c in changed]
    tables.show("changed since the run was last started (then -> now)", rows)


def results(values: dict[str, Any], run_dir: Path) -> None:
    """Write results.json and print the closing table."""
    files.write_json(run_dir / "results.json", _json_values(values))
    rate = values["images_per_second"]
    speed = f", {rate:.0f} images/s while training" if rate else ""  # 0: no step was left to take
    rows = [
        (
            "model",
            f"{parameters(values['parameters'], values['trained_parameters'])}, "
            f"{values['steps']:,} steps on data={values['data']}",
        ),
        ("experts", ", ".join(values["experts"]) or "none: trained without teachers"),
        ("time", f"{values['seconds'] / 60:.1f} min{speed}"),
        ("peak memory", f"{values['peak_memory_bytes'] / 2**30:.2f} GiB"),
        (
            "validation loss",
            f"{values['validation_loss']:.4f}, mean squared error on held-out pictures",
        ),
    ]
    rows += _reconstruction_rows(values)
    rows += [_accuracy_row(name, claims) for name, claims in values["accuracies"].items()]
    rows += [_novelty_row(name, distances) for name, distances in values["novelty"].items()]
    rows += _skipped_rows(values["skipped"])
    rows += [("pictures", values["samples"]), ("checkpoint", values["checkpoint"])]
    tables.show("training is done", rows)
    if values["accuracies"] or "psnr_held_out" not in values:
        _next_command(values)


def _reconstruction_rows(values: dict[str, Any]) -> list[tuple[str, str]]:
    """Quality of an autoencoder's reconstructions, if the run trained one."""
    if "psnr_held_out" not in values:
        return []
    quality = f"PSNR {values['psnr_held_out']:.2f} dB, SSIM {values['ssim_held_out']:.3f}"
    return [("reconstruction", f"{quality}, on held-out pictures")]


def _accuracy_row(name: str, claims: dict[str, float]) -> tuple[str, str]:
    detail = ", ".join(f"{claim} {value:.0%}" for claim, value in claims.items() if claim != "all")
    note = SPLIT_NOTES.get(name.rpartition("/")[2], "")
    text = f"{claims['all']:.1%} of pictures show everything in the prompt{note} ({detail})"
    return f"accuracy {name}", text


def _novelty_row(name: str, distances: dict[str, dict[float, float]]) -> tuple[str, str]:
    kinds = (
        f"{kind.replace('_', ' ')} {at[0.5]:.2f} (nearest 1 %: {at[0.01]:.2f})"
        for kind, at in distances.items()
    )
    return f"distance {name}", f"to the nearest training picture: {', '.join(kinds)}"


def _next_command(values: dict[str, Any]) -> None:
    """The generate.py command that draws from the checkpoint."""
    prompt = (values["prompts"] or ["a large red circle, top left"])[0]
    condition = values.get("ask") or f"prompt={prompt}"
    words = [f"checkpoint={values['checkpoint']}", *values.get("beside", ()), condition]
    words += ["n=4", "seed=1"]
    quoted = " ".join(shell(word) for word in words)
    tables.line(f"next: {interpreter.command('generate.py')} {quoted}")
    if not values.get("ask"):
        tables.line(f"      prompt={HELP} lists the prompts that this model was trained for")


def caches(sources: Sequence[Source], skipped: Sequence[str]) -> None:
    """Print the caches' paths, and for each group the numbers of reused and new rows."""
    rows: list[tuple[str, str]] = []
    for source in sources:
        for split, cache in source.caches.items():
            store = cache.store
            count = f"{store.total:,} sample{'s' if store.total != 1 else ''} in {store.root}"
            rows.append((f"{source.name}/{split}", count))
            for group in sorted(store.groups()):
                new = cache.new_rows.get(group, 0)
                left = sum(len(store.rows(k)) for k in store.pending(group))
                waiting = f", {left:,} left for a run with this expert" if left else ""
                reused = store.total - new - left
                rows.append((f"  {group}", f"{reused:,} kept, {new:,} computed{waiting}"))
        kinds = source.train.records.kinds.items()
        if kinds:
            text = ", ".join(f"{n:,} {suffix}" for suffix, n in kinds)
            rows.append((f"{source.name}: files", text))
        findings = (f for cache in source.caches.values() for f in cache.records.findings)
        for finding in dict.fromkeys(findings):
            rows.append((f"{source.name}: {finding.kind}", finding.line()))
    tables.show("the caches are complete", [*rows, *_skipped_rows(skipped)])


def pictures(paths: Sequence[Path], grid: Path | None, grid_size: int) -> None:
    """Print the paths of the images, and of the grid of the first `grid_size`."""
    rows = [("images", f"{len(paths):,} in {paths[0].parent}")]
    if grid is not None:
        first = f", of the first {grid_size}" if len(paths) > grid_size else ""
        rows.append(("grid", f"{grid}{first}"))
    tables.show("drawn", rows)


def answers(path: Path, count: int) -> None:
    """Print the path of the file of sampled targets."""
    tables.show("answered", [("pairs", f"{count:,} in {path}")])


def plan(generation: GenerationPlan) -> None:
    """Print the weights of each part, and the memory of each stage of sampling."""
    rows = [
        (p.name, f"{p.parameters:>15,} parameters  {p.dtype:<9} {size(p.bytes)}")
        for p in generation.parts
    ]
    tables.show("weights", rows)
    height, width = generation.size
    count = "1 image" if generation.images == 1 else f"{generation.images} images at once"
    tables.show(f"in memory, {count} of {width} x {height}", _stage_rows(generation.memory))


def division(training: TrainingPlan) -> None:
    """Print the division of the batch, and the memory of each stage of training."""
    tables.line(training.line)
    title = f"planned memory, of {size(training.limit)} that may be used"
    tables.show(title, _stage_rows(training.memory))


def _stage_rows(memory: MemoryPlan) -> list[tuple[str, str]]:
    context = max((stage.rows.get(CONTEXT, 0) for stage in memory.stages), default=0)
    reserved = f"{size(context):>10}  in each stage on the card (hardware.context_gb)"
    return [
        (
            stage.name,
            f"{size(stage.total):>10}  "
            + ", ".join(f"{name} {size(count)}" for name, count in stage.rows.items()),
        )
        for stage in memory.stages
    ] + ([(CONTEXT, reserved)] if context else [])


def notes(lines: Sequence[str]) -> None:
    """Print notes, which stop nothing."""
    for line in lines:
        tables.line(f"note: {line}")


def shell(word: str) -> str:
    """key=value quoted for a shell where needed, the value alone if possible."""
    key, _, value = word.partition("=")
    if shlex.quote(word) == word:
        return word
    if not any(c in value for c in '"\\$`!\n'):
        return f'{key}="{value}"'
    return f"{key}={shlex.quote(value)}"


def _json_values(value: Any) -> Any:
    """The value with NaN and infinity, which JSON does not have, as strings."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _json_values(inner) for key, inner in value.items()}
    return [_json_values(inner) for inner in value] if isinstance(value, list | tuple) else value


def _skipped_rows(lines: Sequence[str]) -> list[tuple[str, str]]:
    if not lines:
        return []
    more = [f"and {len(lines) - MAX_SKIPPED:,} more"] if len(lines) > MAX_SKIPPED else []
    return [(f"skipped {len(lines):,}", "\n".join([*lines[:MAX_SKIPPED], *more]))]
