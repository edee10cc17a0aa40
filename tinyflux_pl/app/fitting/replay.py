"""The recipe of `train.py replay=BUNDLE`: recompute the last failed step of a stopped run."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from tinyflux_pl.app.experts import pathway
from tinyflux_pl.app.fitting.module_kinds import KINDS
from tinyflux_pl.app.fitting.objective import build_objective
from tinyflux_pl.checkpoints import directory
from tinyflux_pl.config.bind import bind
from tinyflux_pl.config.pathway_schema import PORTS, Pathway
from tinyflux_pl.config.saved_nodes import build_saved
from tinyflux_pl.config.schema import Train
from tinyflux_pl.core import precision
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.engine.packing import pack
from tinyflux_pl.methods.registry import method_of

if TYPE_CHECKING:
    from tinyflux_pl.objectives.velocity_targets import VelocityTargets
    from tinyflux_pl.training.diagnosis import Diagnosis
    from tinyflux_pl.training.replay_bundle import Replay

MAX_ROWS = 16  # samples, and groups of modules, that the tables list: the worst


def replay(config: Train) -> int:
    """Rebuild the components of a bundle and recompute its loss and gradients.

    Prints where they fail. Returns 1 if they fail again, else 0.
    """
    import torch

    from tinyflux_pl.training.diagnosis import diagnose
    from tinyflux_pl.training.replay_bundle import Replay

    bundle = Replay.read(config.replay)
    run, file = bundle.config, str(bundle.checkpoint.path.parent)
    if method_of(bundle.checkpoint.config).distills:
        raise ConfigError(
            "a distilled network's loss needs its teacher, which the bundle does not hold",
            where=file,
            cure="resume the run from its last checkpoint: resume=auto",
        )
    if method_of(bundle.checkpoint.config).keeps_text:
        raise ConfigError(
            "a learnt word's loss needs its text encoders, which the bundle does not hold",
            where=file,
            cure="resume the run from its last checkpoint: resume=auto",
        )

    def saved(group: str, **objects: Any) -> Any:
        return build_saved(run.get(group), group, config.plain[group], file, **objects)

    nodes = _node(run, "experts", file)
    offered = config.plain["experts"]
    chosen = bind(Pathway, run.get("pathway", PORTS), "pathway")
    if chosen.online is not None:
        raise ConfigError(
            "the loss of pathway=online needs its teacher, which the bundle does not hold",
            where=file,
            cure="resume the run from its last checkpoint: resume=auto",
        )
    ported = [node for node in nodes.values() if node and chosen.ports]
    experts = [build_saved(node, "experts", offered, file) for node in ported]
    targets = _velocity_targets(bundle, chosen, list(nodes), file)
    techniques = {
        name: build_saved(node, "technique", config.plain["technique"], file)
        for name, node in (run.get("technique") or {}).items()
    }
    objective: Any = build_objective(saved, bundle.null_text, experts, targets, techniques)
    denoiser: Any
    denoiser, saved_names = KINDS[objective.trains].network(bundle.checkpoint)
    weights = bundle.checkpoint.weights("raw")
    directory.load_weights(denoiser, weights, str(bundle.checkpoint.path), saved_names)
    if stored := bundle.checkpoint.config.get("base_precision"):
        pack(denoiser, stored, kept=saved_names)
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


def _velocity_targets(
    bundle: Replay, chosen: Pathway, teachers: list[str], where: str
) -> VelocityTargets | None:
    """The velocity targets of the failed step, restored to their state before it."""
    if chosen.velocity is None:
        return None
    from tinyflux_pl.experts.velocity import Velocity

    seed = _node(bundle.config, "teacher", where).get("seed")
    times, int8 = chosen.velocity.t_buckets, chosen.velocity.int8
    experts = [Velocity(name, times, seed, int8) for name in teachers]
    targets = pathway.velocity_targets(chosen, experts, bundle.config["seed"])
    if targets is not None and bundle.velocity_targets is not None:
        targets.restore(bundle.velocity_targets)
    return targets


def _node(run: dict[str, Any], name: str, where: str) -> dict[str, Any]:
    if not isinstance(run.get(name), dict):
        cure = "use a bundle written by your own run"
        raise ConfigError(f"{name} is not described in this bundle", where=where, cure=cure)
    return run[name]


def _print_tables(bundle: Replay, diagnosis: Diagnosis) -> None:
    """Print loss by term, loss by sample, and gradient norms; non-finite values first."""
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
    """The conditions of the replay, the first non-finite values, and the verdict."""
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
    optimizer = then.optimizer and f" of the {then.optimizer}"
    verdict = "; ".join(now.reasons) or "loss and gradient are finite and within their limits"
    return [
        f"step {then.step}{optimizer}, {len(then.sample_ids)} samples, computed {computed}",
        f"the micro-batches {batches}",
        f"the weights are {weights}",
        *(f"not finite in the batch: {line}" for line in diagnosis.inputs[:MAX_ROWS]),
        *(f"not finite in the network: {name}" for name in diagnosis.weights[:MAX_ROWS]),
        f"first output that is not finite: {diagnosis.output or 'none'}",
        f"first gradient that is not finite, going back: {diagnosis.gradient or 'none'}",
        f"{'reproduced' if diagnosis.reproduced else 'NOT reproduced'}: {verdict}",
    ]


def _worst(values: dict[Any, float]) -> list[Any]:
    """The keys of non-finite values, then of the largest."""

    def order(key: Any) -> float:
        return -values[key] if math.isfinite(values[key]) else -math.inf

    return sorted(values, key=order)[:MAX_ROWS]


def _number(value: float) -> str:
    return f"{value:.6g}"
