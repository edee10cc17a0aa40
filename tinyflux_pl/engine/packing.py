"""A network whose blocks' linear layers are quantized."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tinyflux_pl.core.divisible_inputs import DivisibleInput
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.denoisers import gguf_linear
from tinyflux_pl.engine.folding import AT_RUN_TIME, Folding, folded
from tinyflux_pl.engine.packed_linear import PackedLinear
from tinyflux_pl.engine.weight_formats import FORMATS, Format, signal_to_noise

# adapters that read the weights of their base: part of their parameters' names -> kind
READING = {"lora_magnitude_vector": "DoRA", "lokr_": "LoKr"}


@dataclass(frozen=True)
class PackedLayer:
    """One layer: bytes before and after, and the signal-to-noise ratio of its weight in dB.

    `divided` says where its input is divided by factors; empty without any.
    """

    name: str
    before: int
    after: int
    decibels: float | None  # None on the meta device
    divided: str = ""


@dataclass(frozen=True)
class Packing:
    """The packed layers of a network, and those that do not divide into groups."""

    format: Format
    layers: list[PackedLayer]
    left: list[str]

    @property
    def summary(self) -> str:
        """One line: number of layers, bytes, and signal-to-noise ratios."""
        before = sum(layer.before for layer in self.layers)
        after = sum(layer.after for layer in self.layers)
        ratios = [(layer.decibels, layer.name) for layer in self.layers if layer.decibels]
        worst = min(ratios)
        left = f"; kept, since {self.format.group} does not divide their inputs: {len(self.left)}"
        return (
            f"{self.format.name}: {len(self.layers)} layers, {before / 2**20:,.1f} MiB in "
            f"{after / 2**20:,.1f} MiB; signal to noise of the weights "
            f"{statistics.median(r for r, _ in ratios):.1f} dB, least {worst[0]:.1f} dB in "
            f"{worst[1]}{left if self.left else ''}{self._divided}"
        )

    @property
    def _divided(self) -> str:
        divided = [layer.divided for layer in self.layers if layer.divided]
        late = sum(each.startswith(AT_RUN_TIME) for each in divided)
        early = len(divided) - late
        counts = f"; inputs divided in the layers before: {early}, at run time: {late}"
        return counts if divided else ""

    def table(self) -> Iterator[str]:
        """CSV: a row a layer, the noisiest first."""
        yield "layer,format,bytes_before,bytes,signal_to_noise_db,input_divided"
        for layer in sorted(self.layers, key=lambda layer: layer.decibels or 0.0):
            ratio = "" if layer.decibels is None else f"{layer.decibels:.2f}"
            cells = (layer.name, self.format.name, layer.before, layer.after, ratio, layer.divided)
            yield ",".join(map(str, cells))


@torch.no_grad()
def pack(
    network: nn.Module,
    name: str,
    factors: Mapping[str, Tensor] | None = None,
    where: str = "engine.precision",
    kept: Collection[str] = (),
    inputs: Iterable[DivisibleInput] = (),
) -> Packing:
    """Replace every linear layer inside the network's lists of blocks by a packed one, in place.

    `factors` of input channels, by layer (engine.channel_balance); layers without any have none.
    Those of `inputs` are divided in the layers before (engine.folding), the others at run time.
    Packed layers do not train; gradients pass them. Embeddings, norms, convolutions, the layers
    outside of blocks and those whose weights `kept` names stay as they are. ConfigError, about the
    key `where`, for an unknown format, for DoRA and LoKr, for blocks of a GGUF file, and for a
    network without such layers.
    """
    if name not in FORMATS:
        cure = f"choose {', '.join(FORMATS)}"
        raise ConfigError(f"no format {name!r}", where=where, cure=cure)
    gguf_linear.require_numbers(network, f"{where}={name}")
    names = [path for path, _ in network.named_parameters()]
    for part, kind in READING.items():
        if any(part in path for path in names):
            cure = f"merge it first: python -m tinyflux_pl.app.adapters merge, or {where}=null"
            what = f"a {kind} adapter reads the weights of its base"
            raise ConfigError(what, where=where, cure=cure)
    format = FORMATS[name]
    layers: list[PackedLayer] = []
    slots = [slot for slot in _linear_slots(network) if f"{slot[0]}.weight" not in kept]
    left = [path for path, _, _, linear in slots if not PackedLinear.fits(linear, format)]
    slots = [slot for slot in slots if slot[0] not in left]
    chosen = {path for path, *_ in slots}
    folding = folded(network, factors or {}, inputs, chosen)
    for path, parent, leaf, linear in slots:
        late = None if path in folding.columns else (factors or {}).get(path)
        packed = PackedLinear(folding.applied(path, linear), format, late)
        layers.append(_described(path, linear, packed, folding))
        setattr(parent, leaf, packed)
    folding.change_unpacked(network, chosen)
    if not layers:
        what = f"no linear layer of the network's blocks can be stored as {name}"
        raise ConfigError(what, where=where, cure=f"{where}=null")
    return Packing(format, layers, left)


def linear_layers(network: nn.Module) -> dict[str, nn.Linear]:
    """The layers that `pack` replaces, by name."""
    return {path: layer for path, _, _, layer in _linear_slots(network)}


def _linear_slots(network: nn.Module) -> Iterator[tuple[str, nn.Module, str, nn.Linear]]:
    """Path, parent module, name within it, and layer; of adapters the base alone."""
    lists = [name for name, module in network.named_modules() if isinstance(module, nn.ModuleList)]
    for path, module in network.named_modules():
        inside = any(path.startswith(f"{name}.") for name in lists)
        if not inside or type(module) is not nn.Linear or "lora_" in path:
            continue
        parent, _, leaf = path.rpartition(".")
        yield path, network.get_submodule(parent), leaf, module


def _described(path: str, linear: nn.Linear, packed: PackedLinear, folding: Folding) -> PackedLayer:
    after = packed.packed.nbytes + packed.scale.nbytes
    after += 0 if packed.factors is None else packed.factors.nbytes
    ratio = None
    if not linear.weight.is_meta:
        ratio = signal_to_noise(linear.weight, folding.restored(path, packed.unpacked()))
    divided = folding.divided.get(path, "")
    return PackedLayer(path, linear.weight.nbytes, after, ratio, divided)
