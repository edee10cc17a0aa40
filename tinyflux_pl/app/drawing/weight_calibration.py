"""Calibration of `engine.precision`: recorded while drawing, fitted, saved and reused."""

from __future__ import annotations

import statistics
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tinyflux_pl.app.drawing import drawing_cache
from tinyflux_pl.config.cache_schema import Cache
from tinyflux_pl.config.schema import Generate
from tinyflux_pl.core import files
from tinyflux_pl.core.divisible_inputs import DivisibleInput
from tinyflux_pl.core.errors import CheckpointMismatch, ConfigError
from tinyflux_pl.denoisers.denoiser import DenoiserModule
from tinyflux_pl.engine import channel_balance
from tinyflux_pl.engine.activation_record import LayerRecord, recorded
from tinyflux_pl.engine.packed_linear import PackedLinear
from tinyflux_pl.engine.packing import linear_layers
from tinyflux_pl.engine.weight_formats import FORMATS, signal_to_noise
from tinyflux_pl.weights.headers import metadata_of


@dataclass(frozen=True)
class LayerRatio:
    """Signal to noise in dB of a layer's output, without and with its factors."""

    name: str
    nearest: float
    balanced: float


@contextmanager
def recording(pipeline: Any, config: Generate) -> Generator[list[str]]:
    """Inside, record inputs if `engine.calibrate` is set; then fit, and write the file.

    Yields a list that afterwards holds the lines to print.
    """
    lines: list[str] = []
    if config.engine.calibrate is None:
        yield lines
        return
    layers = linear_layers(pipeline.denoiser)
    with recorded(layers) as records:
        yield lines
    lines += _fitted(pipeline, config, layers, records)


def _fitted(
    pipeline: Any, config: Generate, layers: Mapping[str, Any], records: Mapping[str, LayerRecord]
) -> list[str]:
    engine = config.engine
    maxima = {n: torch.stack(record.maxima) for n, record in records.items() if record.maxima}
    factors = shared_factors(pipeline.denoiser, engine.balance, layers, maxima)
    file = Path(engine.calibrate).expanduser()
    described = {"weights": drawing_cache.identity(pipeline), "balance": engine.balance}
    files.write_tensors(file, factors, described)
    ratios = list(_ratios(layers, records, factors, engine.precision))
    passes = max(len(seen) for seen in maxima.values())
    lines = [
        f"{engine.balance}: factors of {len(factors)} layers from {passes} passes: {file}",
        f"{engine.precision}: signal to noise of the layers' outputs, median: "
        f"{statistics.median(r.nearest for r in ratios):.1f} dB rounded to nearest, "
        f"{statistics.median(r.balanced for r in ratios):.1f} dB with {engine.balance}",
    ]
    if engine.report is not None:
        report = Path(engine.report).expanduser()
        files.write_bytes(report, ("\n".join(_table(ratios, engine.balance)) + "\n").encode())
        lines.append(f"signal to noise of each layer: {report}")
    return lines


def shared_factors(
    denoiser: DenoiserModule, method: str, layers: Mapping[str, Any], maxima: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Factors of each layer; layers that read one tensor share them, so that it can be divided."""
    groups = [tuple(n for n in each.layers if n in maxima) for each in denoiser.divisible_inputs()]
    sharing = {name for group in groups for name in group}
    groups += [(name,) for name in maxima if name not in sharing]
    factors = {}
    for group in filter(None, groups):
        seen = torch.stack([maxima[name] for name in group]).amax(0)
        weight = torch.cat([layers[name].weight.detach().cpu() for name in group])
        factors |= dict.fromkeys(group, channel_balance.factors(method, seen, weight))
    return {name: factors[name].clone() for name in maxima}  # a file holds no tensor twice


def foldable(denoiser: DenoiserModule, cache: Cache) -> list[DivisibleInput]:
    """The inputs that can be divided in the layers before.

    TeaCache compares what the first block's attention reads: what that block reads is divided at
    run time, so that the measure stays that of its coefficients.
    """
    inputs = list(denoiser.divisible_inputs())
    if not inputs or (cache.kind != "teacache" and cache.calibrate is None):
        return inputs
    first = denoiser.block_stack()[0].module
    path = next(name for name, module in denoiser.named_modules() if module is first)
    return [each for each in inputs if not each.layers[0].startswith(f"{path}.")]


@torch.no_grad()
def _ratios(
    layers: Mapping[str, Any],
    records: Mapping[str, LayerRecord],
    factors: Mapping[str, Tensor],
    precision: str,
) -> Iterable[LayerRatio]:
    """Signal to noise of each layer, on the recorded rows of its input."""
    format = FORMATS[precision]
    for name, values in factors.items():
        layer = layers[name]
        if not PackedLinear.fits(layer, format):
            continue
        rows = torch.cat(records[name].rows).to(layer.weight)
        expected = layer(rows)
        nearest = PackedLinear(layer, format)(rows)
        balanced = PackedLinear(layer, format, values)(rows)
        ratios = (signal_to_noise(expected, output) for output in (nearest, balanced))
        yield LayerRatio(name, *ratios)


def _table(ratios: list[LayerRatio], method: str) -> Iterable[str]:
    yield f"layer,nearest_db,{method}_db"
    for ratio in sorted(ratios, key=lambda ratio: ratio.balanced):
        yield f"{ratio.name},{ratio.nearest:.2f},{ratio.balanced:.2f}"


def read(pipeline: Any, source: str) -> dict[str, Tensor]:
    """The factors of a calibration file, by layer; CheckpointMismatch if of other weights."""
    path = Path(source).expanduser()
    if not path.is_file():
        cure = f"make it: engine.calibrate={source}, with a few prompts"
        raise ConfigError("no such calibration", where=str(path), cure=cure)
    factors = files.read_tensors(path)
    here, there = drawing_cache.identity(pipeline), metadata_of(path).get("weights")
    if here != there:
        what = f"it was fitted to other weights ({there}, here {here})"
        cure = f"fit it to these: engine.calibration=null engine.calibrate={source}"
        raise CheckpointMismatch(what, where=str(path), cure=cure)
    layers = linear_layers(pipeline.denoiser)
    for name, values in factors.items():
        fits = name in layers and values.shape == (layers[name].in_features,)
        if not fits or not bool((values > 0).all() and values.isfinite().all()):
            cure = "make it again: engine.calibrate=FILE"
            raise CheckpointMismatch(f"no factors for {name!r}", where=str(path), cure=cure)
    return factors
