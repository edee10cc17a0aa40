"""Prints the table of memory plans of docs/inference.md: every release within a budget.

    python -m benchmarks engine_plans [--budget 12GiB] [MODEL ... [KEY=VALUE ...]]

Nothing is allocated: weights are counted by their shapes, activations on torch's meta device, at
the release's size and in its dtype.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tinyflux_pl.app.memory.inference_memory import GenerationPlan

ROOT = Path(__file__).resolve().parents[1]
DEV = "flux1_dev"
ROWS = (
    *((DEV,), (DEV, "engine.precision=fp8"), (DEV, "engine.precision=int4"), ("flux1_schnell",)),
    *(("flux1_kontext", "reference=none.png"), ("flux1_fill",)),
    *(("flux2_dev",), ("flux2_klein_4b",), ("flux2_klein_9b",), ("flux3",)),
    *(("sd35_large",), ("sd35_medium",), ("sdxl",)),
)


def plan_of(words: Sequence[str], budget: str) -> GenerationPlan:
    """The plan of `generate.py model=WORDS engine.budget=BUDGET plan=only` on a GPU."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from tinyflux_pl.app.memory import inference_memory
    from tinyflux_pl.config import schema

    line = [f"model={words[0]}", *words[1:], f"engine.budget={budget}", "plan=only"]
    with tempfile.TemporaryDirectory() as folder:
        line += ["hardware.accelerator=gpu", f"paths.root='{folder}'", "run=plan"]
        with initialize_config_dir(str(ROOT / "conf"), version_base=None):
            config = compose("generate", overrides=line)
            plain = OmegaConf.to_container(config, resolve=True)
        return inference_memory.plan(schema.read({**plain, "overrides": line}, "generate"))


def row(words: Sequence[str], plan: GenerationPlan) -> str:
    """A line of the table."""
    from tinyflux_pl.engine.memory_plan import size

    turns = [
        f"{n} of {plan.blocks[part]} of {part}" for part, n in plan.placement.blocks_in_turn.items()
    ]
    cells = [", ".join([words[0], *(f"`{word}`" for word in words[1:])]), str(plan.placement)]
    cells.append(", ".join(turns) or "none")
    for stage in plan.memory.stages:
        over = plan.budget is not None and not stage.host and stage.total > plan.budget
        cells.append(size(stage.total) + (" (does not fit)" if over else ""))
    return f"| {' | '.join(cells)} |"


def main(arguments: Sequence[str]) -> int:
    """Print the table; returns 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks engine_plans")
    parser.add_argument("--budget", default="12GiB")
    parser.add_argument("words", nargs="*", help="one row: a model, and keys of generate.py")
    options = parser.parse_args(arguments)
    print("| model= | placement | blocks in turn | text | denoise | decode |")
    print("|---|---|---|---|---|---|")
    for words in [options.words] if options.words else ROWS:
        print(row(words, plan_of(words, options.budget)), flush=True)
    return 0
