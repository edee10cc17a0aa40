"""What a person sees at the end: short tables, and where the pictures lie."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tinyflux_pl.core import files


def results(found: dict[str, Any], run_dir: Path) -> None:
    """Write results.json and print the closing table."""
    files.write_json(run_dir / "results.json", found)
    rows = [
        ("trained", f"{found['parameters']:,} parameters, {found['steps']:,} steps, data {found['data']}"),
        ("experts", ", ".join(found["experts"]) or "none"),
        ("time", f"{found['seconds'] / 60:.1f} min, {found['images_per_second']:.0f} images/s while training"),
        ("peak memory", f"{found['peak_memory_bytes'] / 2**30:.2f} GiB"),
        ("validation loss", f"{found['validation_loss']:.4f}"),
    ]
    for name, claims in found["accuracies"].items():
        detail = ", ".join(f"{claim} {value:.0%}" for claim, value in claims.items() if claim != "all")
        rows.append((f"accuracy {name}", f"{claims['all']:.1%} ({detail})"))
    rows += [("pictures", found["samples"]), ("checkpoint", found["checkpoint"])]
    _print("training is done", rows)
    prompt = (found["prompts"] or ["a large red circle, top left"])[0]
    command = f'python generate.py checkpoint={found["checkpoint"]} prompt="{prompt}" n=4 seed=1'
    Console(soft_wrap=True).print(f"next: {command}", highlight=False, markup=False)


def caches(sources: Sequence[Any]) -> None:
    """What was prepared, and where."""
    rows = []
    for source in sources:
        for split, store in source.stores.items():
            groups = ", ".join(sorted(store.groups()))
            rows.append((f"{source.name}/{split}", f"{store.total:,} samples: {groups} in {store.root}"))
        for record_set in source.records.values():
            for line in getattr(record_set, "skipped", []):
                rows.append(("skipped", str(line)))
    _print("the caches are complete", rows)


def pictures(paths: Sequence[Path], grid: Path) -> None:
    """Where the images lie."""
    _print("drawn", [("images", f"{len(paths)} in {grid.parent}"), ("grid", str(grid))])


def _print(title: str, rows: Sequence[tuple[str, str]]) -> None:
    table = Table(title=title, show_header=False, title_justify="left", title_style="bold")
    table.add_column(no_wrap=True, style="cyan")
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, value)
    Console().print(table)
