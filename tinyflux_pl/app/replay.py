"""The recipe of `train.py replay=BUNDLE`: computes the last failing step of a stopped run again."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from tinyflux_pl.app.objective import build_objective
from tinyflux_pl.checkpoints import directory
from tinyflux_pl.config.saved_nodes import build_saved
from tinyflux_pl.config.schema import Train
from tinyflux_pl.core import precision
from tinyflux_pl.core.errors import ConfigError

if TYPE_CHECKING:
    from tinyflux_pl.training.diagnosis import Diagnosis
    from tinyflux_pl.training.replay_bundle import Replay

MAX_ROWS = 16  # samples, and groups of modules, that the tables list: the worst


def replay(config: Train) -> int:
    """Bundle -> components -> loss and gradients -> where they fail. 1 if they fail again, else
    0.
    """
    import torch

    from tinyflux_pl.inference.described_parts import network
    from tinyflux_pl.training.diagnosis import diagnose
    from tinyflux_pl.training.replay_bundle import Replay

    bundle = Replay.read(config.replay)
    run, file = bundle.config, str(bundle.checkpoint.path.parent)

    def saved(group: str, **objects: Any) -> Any:
        return build_saved(run.get(group), group, config.plain[group], file, **objects)

    nodes = _node(run, "experts", file)
    offered = config.plain["experts"]
    experts = [build_saved(node, "experts", offered, file) for node in nodes.values()]
    objective = build_objective(saved, bundle.null_text, experts)
    denoiser: Any
    denoiser, saved_names = network(bundle.checkpoint)
    weights = bundle.checkpoint.weights("raw")
    directory.load_weights(denoiser, weights, str(bundle.checkpoint.path), saved_names)
    hardware = _node(run, "hardware", file)
    accelerator, configured = hardware.get("accelerator"), hardware.get("precision")
    device = "cuda" if accelerator != "cpu" and torch.cuda.is_available() else "cpu"
    number_format = precision.choose(configured, accelerator if device == "cuda" else "cpu")
    diagnosis = diagnose(bundle, denoiser, objective, number_format, device)
    computed = f"on {device}, {number_format}; the run: {accelerator}, {configured}"
    _print_tables(bundle, diagnosis)
    for line in _lines(bundle, diagnosis, computed):
        Console().print(line, highlight=False, markup=False, soft_wrap=True)
    return 1 if diagnosis.reproduced else 0


def _node(run: dict[str, Any], name: str, where: str) -> dict[str, Any]:
    if not isinstance(run.get(name), dict):
        cure = "use a bundle that your own run has written"
        raise ConfigError(f"{name} is not described in this bundle", where=where, cure=cure)
    return run[name]


def _print_tables(bundle: Replay, diagnosis: Diagnosis) -> None:
    """Loss by term, loss by sample, and gradient norms: the values that fail first."""
    then, now = bundle.verdict, diagnosis.verdict
    terms = _table("loss by term", "term", "value")
    for name, value in diagnosis.terms.items():
        terms.add_row(name, _number(value))
    terms.add_row("all", _compared(now.loss, then.loss, now.loss_limit))
    samples = _table("loss by sample", "sample", *diagnosis.terms)
    totals = {sample: sum(values.values()) for sample, values in diagnosis.samples.items()}
    for sample in _worst(totals):
        values = diagnosis.samples[sample].values()
        samples.add_row(str(sample), *(_number(value) for value in values))
    norms = _table("norm of the gradient", "modules", "value")
    for name in _worst(diagnosis.groups):
        norms.add_row(name, _number(diagnosis.groups[name]))
    norms.add_row("all", _compared(now.norm, then.norm, now.norm_limit))
    for table in (terms, samples, norms):
        Console().print(table)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _compared(now: float, then: float, limit: float) -> str:
    return f"{_number(now)} (in the run {_number(then)}, limit {_number(limit)})"


def _lines(bundle: Replay, diagnosis: Diagnosis, computed: str) -> list[str]:
    """The conditions of the replay, the first values that are not finite, and the verdict."""
    then, now = bundle.verdict, diagnosis.verdict
    if bundle.read_again:
        batches = "were read from the caches again: those that failed are gone"
    else:
        batches = "are those that failed"
    weights = (
        "not those it failed with: later steps were taken"
        if bundle.moved
        else "those it failed with"
    )
    verdict = "; ".join(now.reasons) or "loss and gradient are finite and within their limits"
    return [
        f"step {then.step}, {len(then.sample_ids)} samples, computed {computed}",
        f"the micro-batches {batches}",
        f"the weights are {weights}",
        *(f"not finite in the batch: {line}" for line in diagnosis.inputs[:MAX_ROWS]),
        *(f"not finite in the network: {name}" for name in diagnosis.weights[:MAX_ROWS]),
        f"first output that is not finite: {diagnosis.output or 'none'}",
        f"first gradient that is not finite, going back: {diagnosis.gradient or 'none'}",
        f"{'reproduced' if diagnosis.reproduced else 'NOT reproduced'}: {verdict}",
    ]


def _worst(values: dict[Any, float]) -> list[Any]:
    """The keys of values that are not finite, then of the largest."""

    def order(key: Any) -> float:
        return -values[key] if math.isfinite(values[key]) else -math.inf

    return sorted(values, key=order)[:MAX_ROWS]


def _number(value: float) -> str:
    return f"{value:.6g}"
