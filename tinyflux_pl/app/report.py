"""What a person sees at the end: short tables, and where the pictures lie."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tinyflux_pl.app import tables
from tinyflux_pl.app.inference_memory import GenerationPlan
from tinyflux_pl.app.run_folder import configurations
from tinyflux_pl.app.training_memory import TrainingPlan
from tinyflux_pl.config.redact import redact_data
from tinyflux_pl.core import files, interpreter
from tinyflux_pl.data.training_captions import HELP
from tinyflux_pl.engine.memory_plan import size

SPLITS = {  # of the prompts of the closing evaluation
    "held_out": ", in combinations never seen in training",
    "short": ", for short prompts that leave something open",
}
SHOWN = 10  # skipped files that the closing table names


def configuration(config: dict[str, Any], step: int) -> None:
    """Keep what the run was asked for beside its results, and the step it starts from; earlier ones stay."""
    folder = Path(config["run_dir"])
    number = max(configurations(folder), default=-1) + 1
    files.write_json(
        folder / (f"config_{number}.json" if number else "config.json"), redact_data({**config, "from_step": step})
    )


def changes(found: Sequence[Any]) -> None:
    """What a resumed run was asked for differently, and what of it that changes."""
    if not found:
        return
    rows = [(c.key, f"{c.then} -> {c.now}; this changes {c.effect}") for c in found]
    tables.show("changed since the run was last started (then -> now)", rows)


def results(found: dict[str, Any], run_dir: Path) -> None:
    """Write results.json and print the closing table."""
    trained = found["images_per_second"]
    speed = f", {trained:.0f} images/s while training" if trained else ""  # none where no step was left to take
    files.write_json(run_dir / "results.json", _in_words(found))
    rows = [
        ("model", f"{found['parameters']:,} parameters, {found['steps']:,} steps on data={found['data']}"),
        ("experts", ", ".join(found["experts"]) or "none: trained without teachers"),
        ("time", f"{found['seconds'] / 60:.1f} min{speed}"),
        ("peak memory", f"{found['peak_memory_bytes'] / 2**30:.2f} GiB"),
        ("validation loss", f"{found['validation_loss']:.4f}, mean squared error on pictures held back from training"),
    ]
    for name, claims in found["accuracies"].items():
        detail = ", ".join(f"{claim} {value:.0%}" for claim, value in claims.items() if claim != "all")
        kind = SPLITS.get(name.rpartition("/")[2], "")
        rows.append(
            (f"accuracy {name}", f"{claims['all']:.1%} of pictures show all that was asked for{kind} ({detail})")
        )
    for name, distances in found["novelty"].items():
        shown = (
            f"{kind.replace('_', ' ')} {at[0.5]:.2f} (nearest 1 %: {at[0.01]:.2f})" for kind, at in distances.items()
        )
        rows.append((f"distance {name}", f"to the nearest training picture: {', '.join(shown)}"))
    rows += _skipped(found["skipped"])
    rows += [("pictures", found["samples"]), ("checkpoint", found["checkpoint"])]
    tables.show("training is done", rows)
    prompt = (found["prompts"] or ["a large red circle, top left"])[0]
    asked = [*found.get("beside", ()), found.get("ask") or f"prompt={prompt}"]
    words = [f"checkpoint={found['checkpoint']}", *asked, "n=4", "seed=1"]
    tables.line("next: " + " ".join([interpreter.command("generate.py"), *(shell(word) for word in words)]))
    if not found.get("ask"):
        tables.line(f"      prompt={HELP} in it tells which prompts this model was trained for")


def caches(sources: Sequence[Any], skipped: Sequence[str]) -> None:
    """What was prepared, and where: of each group, how many entries were there and how many this run has made."""
    rows = []
    for source in sources:
        for split, cache in source.caches.items():
            store = cache.store
            count = f"{store.total:,} sample{'s' if store.total != 1 else ''} in {store.root}"
            rows.append((f"{source.name}/{split}", count))
            for group in sorted(store.groups()):
                made, left = cache.new_rows.get(group, 0), sum(len(store.rows(k)) for k in store.pending(group))
                waiting = f", {left:,} left for a run with this expert" if left else ""
                rows.append((f"  {group}", f"{store.total - made - left:,} kept, {made:,} made anew{waiting}"))
        read = ", ".join(f"{n:,} {suffix}" for suffix, n in source.train.records.kinds.items())
        rows += [(f"{source.name}: files", read)] if read else []
        unused = dict.fromkeys(f for cache in source.caches.values() for f in cache.records.findings)
        rows += [(f"{source.name}: {finding.kind}", finding.line()) for finding in unused]
    tables.show("the caches are complete", [*rows, *_skipped(skipped)])


def pictures(paths: Sequence[Path], grid: Path | None, most: int) -> None:
    """Where the images lie, and the sheet of the first `most` of them."""
    rows = [("images", f"{len(paths):,} in {paths[0].parent}")]
    if grid is not None:
        rows.append(("grid", f"{grid}{f', of the first {most}' if len(paths) > most else ''}"))
    tables.show("drawn", rows)


def answers(path: Path, count: int) -> None:
    """Where the answered conditions lie."""
    tables.show("answered", [("pairs", f"{count:,} in {path}")])


def plan(found: GenerationPlan) -> None:
    """Weights of each part, and all that is in memory while each stage is at work."""
    rows = [(p.name, f"{p.parameters:>15,} parameters  {p.dtype:<9} {size(p.bytes)}") for p in found.parts]
    tables.show("weights", rows)
    height, width = found.size
    stages = [
        (stage.name, f"{size(stage.total):>10}  {', '.join(f'{what} {size(n)}' for what, n in stage.rows.items())}")
        for stage in found.memory.stages
    ]
    many = "1 image" if found.images == 1 else f"{found.images} images at once"
    tables.show(f"in memory, {many} of {width} x {height}", stages)


def notes(lines: Sequence[str]) -> None:
    """What is worth a second look and stops nothing."""
    for line in lines:
        tables.line(f"note: {line}")


def division(found: TrainingPlan) -> None:
    """How a batch is divided so that it fits, and what each stage of training then takes."""
    tables.line(found.line)
    stages = [
        (stage.name, f"{size(stage.total):>10}  {', '.join(f'{what} {size(n)}' for what, n in stage.rows.items())}")
        for stage in found.memory.stages
    ]
    tables.show(f"planned memory, of {size(found.limit)} that may be used", stages)


def shell(word: str) -> str:
    """key=value as a shell takes it: bare where that is safe, else the value in quotes."""
    key, _, value = word.partition("=")
    if shlex.quote(word) == word:
        return word
    if not any(c in value for c in '"\\$`!\n'):
        return f'{key}="{value}"'
    return f"{key}={shlex.quote(value)}"


def _in_words(value: Any) -> Any:
    """The same, with numbers that JSON does not know, such as the loss of a validation that overflowed, as words."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _in_words(held) for key, held in value.items()}
    return [_in_words(held) for held in value] if isinstance(value, list | tuple) else value


def _skipped(lines: Sequence[str]) -> list[tuple[str, str]]:
    if not lines:
        return []
    more = [f"and {len(lines) - SHOWN:,} more"] if len(lines) > SHOWN else []
    return [(f"skipped {len(lines):,}", "\n".join([*lines[:SHOWN], *more]))]
