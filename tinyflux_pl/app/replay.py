"""The recipe of `python train.py replay=BUNDLE`: a stopped run's last failing step, computed again."""

from __future__ import annotations

import math
from typing import Any

from rich.console import Console
from rich.table import Table

from tinyflux_pl.checkpoints import directory
from tinyflux_pl.config.saved_nodes import build_kept
from tinyflux_pl.core import precision as formats
from tinyflux_pl.core.errors import ConfigError

TITLES = ("loss by term", "loss by sample", "norm of the gradient")
SHOWN = 16  # samples, and groups of modules, that the tables show: the worst


def replay(config: dict[str, Any]) -> int:
    """Bundle -> parts -> loss and gradients -> where they fail. 1 if they fail again, else 0."""
    import torch

    from tinyflux_pl.inference.described_parts import network
    from tinyflux_pl.training.diagnosis import diagnose
    from tinyflux_pl.training.replay_bundle import Replay

    bundle = Replay.read(config["replay"])
    run, file = bundle.config, str(bundle.checkpoint.path.parent)

    def kept(group: str, node: Any, **extra: Any) -> Any:
        return build_kept(node, group, config[group], file, **extra)

    experts = [kept("experts", node) for node in _node(run, "experts", file).values()]
    timesteps = kept("timesteps", run.get("timesteps"))
    told = {"timesteps": timesteps, "null_text": bundle.null_text, "experts": experts}
    objective = kept("objective", run.get("objective"), **told)
    denoiser: Any = network(bundle.checkpoint)
    directory.load_weights(denoiser, bundle.checkpoint.weights("raw"), str(bundle.checkpoint.path))
    hardware = _node(run, "hardware", file)
    accelerator, asked = hardware.get("accelerator"), hardware.get("precision")
    device = "cuda" if accelerator != "cpu" and torch.cuda.is_available() else "cpu"
    precision = formats.choose(asked, accelerator if device == "cuda" else "cpu")
    found = diagnose(bundle, denoiser, objective, precision, device)
    _show(bundle, found, f"on {device}, {precision}; the run: {accelerator}, {asked}")
    return 1 if found.reproduced else 0


def _node(run: dict[str, Any], name: str, where: str) -> dict[str, Any]:
    if not isinstance(run.get(name), dict):
        cure = "use a bundle that your own run has written"
        raise ConfigError(f"{name} is not described in this bundle", where=where, cure=cure)
    return run[name]


def _show(bundle: Any, found: Any, place: str) -> None:
    console, then, now = Console(), bundle.verdict, found.verdict
    terms, samples, norms = (Table(title=title, title_justify="left", title_style="bold") for title in TITLES)
    for table, columns in (
        (terms, ("term", "value")),
        (samples, ("sample", *found.terms)),
        (norms, ("modules", "value")),
    ):
        for column in columns:
            table.add_column(column, overflow="fold")
    for name, value in found.terms.items():
        terms.add_row(name, _number(value))
    terms.add_row("all", f"{_number(now.loss)} (in the run {_number(then.loss)}, limit {_number(now.loss_limit)})")
    totals = {sample: sum(own.values()) for sample, own in found.samples.items()}
    for sample in _worst(totals):
        samples.add_row(str(sample), *(_number(value) for value in found.samples[sample].values()))
    for name in _worst(found.groups):
        norms.add_row(name, _number(found.groups[name]))
    norms.add_row("all", f"{_number(now.norm)} (in the run {_number(then.norm)}, limit {_number(now.norm_limit)})")
    for table in (terms, samples, norms):
        console.print(table)
    lines = [f"step {then.step}, {len(then.sample_ids)} samples, computed {place}"]
    again = "were read from the caches again, those that failed are gone"
    lines.append(f"the micro-batches {again if bundle.read_again else 'are those that failed'}")
    later = "not those it failed with: steps after it were taken"
    lines.append(f"the weights are {later if bundle.moved else 'those it failed with'}")
    lines += [f"not finite in the batch: {line}" for line in found.inputs[:SHOWN]]
    lines += [f"not finite in the network: {name}" for name in found.weights[:SHOWN]]
    lines.append(f"first output that is not finite: {found.output or 'none'}")
    lines.append(f"first gradient that is not finite, going back: {found.gradient or 'none'}")
    verdict = "; ".join(now.reasons) or "loss and gradient are finite and within their limits"
    lines.append(f"{'reproduced' if found.reproduced else 'NOT reproduced'}: {verdict}")
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _worst(values: dict[Any, float]) -> list[Any]:
    """The keys of what is not finite, then of the largest."""
    return sorted(values, key=lambda k: -values[k] if math.isfinite(values[k]) else -math.inf)[:SHOWN]


def _number(value: float) -> str:
    return f"{value:.6g}"
