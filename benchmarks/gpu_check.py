"""Holds the memory plan against a real card: peak memory and images a second of training, as a
markdown table.

    python benchmarks/gpu_check.py                       # on the GPU that is here; about three
    minutes python benchmarks/gpu_check.py --device cpu --only tiny

Needs no weights and no network: pictures are drawn by rule, networks are newly initialised, and the
codec and the words are the embedded ones. Then the loss of one batch on the device is compared with
the CPU's.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from tinyflux_pl.core.console_log import warnings_above_bars

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

EMBEDDED = ("codec=pixels", "text=hashed", "data=shapes", "data.sources.shapes.train.count=8")
EMBEDDED += ("data.sources.shapes.validation.count=2", "preflight=false")
# Name -> what is asked for; the profile's memory, not the card's, divides the batch.
ROWS: dict[str, tuple[str, ...]] = {
    "tiny": ("model=tiny", "experts=lune_sol", "hardware=gpu_12gb"),
    "small": ("model=small", "experts=lune_sol", "hardware=gpu_24gb"),
    "base": ("model=base", *EMBEDDED, "data.image_size=128", "hardware=gpu_24gb"),
    "deep, 12 GiB": ("model=deep", *EMBEDDED, "data.image_size=128", "hardware=gpu_12gb"),
    "deep, 40 GiB": ("model=deep", *EMBEDDED, "data.image_size=128", "hardware=a100_40gb"),
    "deep, 80 GiB": ("model=deep", *EMBEDDED, "data.image_size=128", "hardware=h100"),
}
STEPS = 3  # timed, after one that is not
TOLERANCE = 1e-3  # of the loss, in fp32
HEADER = (
    "row",
    "batch",
    "checkpointing",
    "planned GiB",
    "measured GiB",
    "measured / planned",
    "images/s",
)


def settings(asked: tuple[str, ...], root: str, *more: str) -> Any:
    """The typed configuration of train.py."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from tinyflux_pl.config import schema

    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        config = compose(
            "train", overrides=[*EMBEDDED, *asked, *more, f"paths.root={root}", "run=gpu_check"]
        )
        plain = OmegaConf.to_container(config, resolve=True)
    return schema.read({**plain, "run_dir": root}, "train")


class Trained:
    """A run's network, objective, optimizer and averages on a device, and batches of drawn
    pictures.
    """

    def __init__(self, config: Any, device: str, root: str) -> None:
        from tinyflux_pl.app.caches.sources import open_sources
        from tinyflux_pl.app.components import Parts
        from tinyflux_pl.app.fitting.trainable import build_trainable
        from tinyflux_pl.app.preflight import cache_needs, dry_run_setup
        from tinyflux_pl.config.build import build
        from tinyflux_pl.training.optimizers import build_optimizer

        self.config, self.device = config, device
        cpu = config.hardware.replace(accelerator="cpu", devices=1)
        parts = Parts.from_config(config.replace(hardware=cpu))
        samples = cache_needs.sampled(parts, open_sources(parts))
        length = parts.text.text_spec.length
        self.batch = dry_run_setup.batches(samples, length, config.seed)
        trainable = build_trainable(parts, Path(root), 0, compiled=False)
        self.denoiser, self.objective = trainable.denoiser.to(device), trainable.module.objective
        self.optimizer = build_optimizer(self.denoiser, build(config.optimizer))
        self.averages = [p.detach().float().clone() for p in self.denoiser.parameters()]

    def loss(self, batch: Any, precision: str) -> torch.Tensor:
        """The sum of the objective's terms."""
        from tinyflux_pl.core.precision import autocast

        with autocast(precision, self.device):
            terms = self.objective.loss(self.denoiser, batch, 0)
        return torch.stack(list(terms.values())).sum()

    def step(self, batch: Any, accumulation: int, precision: str) -> None:
        """One optimizer step."""
        for _ in range(accumulation):
            (self.loss(batch, precision) / accumulation).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def measure(asked: tuple[str, ...], device: str, root: str, *more: str) -> tuple[str, ...]:
    """One row: the plan, and what a few steps take."""
    from tinyflux_pl.app.memory.training_memory import choose_division
    from tinyflux_pl.core.precision import choose

    config, plan = choose_division(settings(asked, root, *more))
    assert plan is not None, "a profile says its memory"
    precision = choose(config.hardware.precision, "cpu" if device == "cpu" else "gpu")
    if device == "cpu":
        peak: float | None = None
    else:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    run = Trained(config, device, root)
    batch, accumulation = run.batch(plan.sizes.on_rank, True).to(device), plan.sizes.accumulation
    run.step(batch, min(2, accumulation), precision)  # of more, each takes what the second does
    _wait(device)
    started = time.perf_counter()
    for _ in range(STEPS):
        run.step(batch, 1, precision)
    _wait(device)
    rate = STEPS * plan.sizes.on_rank / (time.perf_counter() - started)
    planned = next(stage for stage in plan.memory.stages if stage.name == "step").total / 2**30
    if device != "cpu":
        peak = torch.cuda.max_memory_allocated() / 2**30
    found = ("-", "-") if peak is None else (f"{peak:.2f}", f"{peak / planned:.2f}")
    shape = f"{config.hardware.batch_size} = {plan.sizes.on_rank} x {accumulation}"
    return (
        shape,
        "yes" if plan.gradient_checkpointing else "no",
        f"{planned:.2f}",
        *found,
        f"{rate:.1f}",
    )


def difference(device: str, root: str) -> float:
    """How far the loss of one batch on the device is from the CPU's, as a share of it, in fp32."""
    losses = []
    for place in ("cpu", device):
        config = settings(ROWS["tiny"], root, "hardware.accumulation=1")
        hardware = config.hardware.replace(gradient_checkpointing=False)
        run = Trained(config.replace(hardware=hardware), place, root)
        losses.append(float(run.loss(run.batch(16, True).to(place), "32-true").detach()))
    return abs(losses[1] - losses[0]) / losses[0]


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


@warnings_above_bars()
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cuda", "cpu")
    )
    parser.add_argument("--only", choices=tuple(ROWS), help="one row")
    parser.add_argument("--override", action="append", default=[], help="key=value for every row")
    arguments = parser.parse_args(argv)
    name = torch.cuda.get_device_name() if arguments.device == "cuda" else "CPU"
    print(f"torch {torch.__version__}, {name}\n")
    print(f"| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}", flush=True)
    with tempfile.TemporaryDirectory() as root:
        for row in [arguments.only] if arguments.only else ROWS:
            cells = measure(ROWS[row], arguments.device, root, *arguments.override)
            print(f"| {' | '.join((row, *cells))} |", flush=True)
        found = difference(arguments.device, root)
    print(
        f"\nthe loss of one batch in fp32: {found:.1e} of it apart from the CPU's (at most "
        f"{TOLERANCE:g})"
    )
    return int(found > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
