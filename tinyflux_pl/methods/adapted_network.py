"""Adapters in a network: added from files, extracted, merged into its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.denoisers import gguf_linear
from tinyflux_pl.methods import peft_layers
from tinyflux_pl.methods.adapter import LOKR, Adapter, Kronecker, Layer, LowRank
from tinyflux_pl.methods.layer_patterns import linear_layers, short_name
from tinyflux_pl.methods.layer_plan import LayerPlan

RUN = "run"  # layout of an adapter that comes from a checkpoint


def add_adapters(denoiser: nn.Module, adapters: Sequence[tuple[Adapter, float]]) -> None:
    """Add frozen adapters to a network, each with its scale, besides one that it may have.

    One with scale 0 is left out, so that the base answers as it did. ConfigError for a LoKr beside
    another adapter, and for DoRA and LoKr beside blocks of a GGUF file.
    """
    used = [(adapter, scale) for adapter, scale in adapters if scale != 0]
    names = [peft_layers.TRAINED] if peft_layers.adapted(denoiser) else []
    for adapter, scale in used:
        kinds = {
            "lokr": {k: v for k, v in adapter.layers.items() if isinstance(v, Kronecker)},
            "dora": {k: v for k, v in adapter.layers.items() if _has_magnitude(v)},
        }
        rest = adapter.layers.keys() - kinds["lokr"].keys() - kinds["dora"].keys()
        kinds["lora"] = {name: adapter.layers[name] for name in rest}
        for kind, layers in kinds.items():
            if layers and kind != "lora":
                gguf_linear.require_numbers(denoiser, f"an adapter of kind {kind}")
            if layers:
                name = f"{kind}_{len(names)}"
                _attach(denoiser, layers, name, kind, scale)
                names.append(name)
    if any(name.startswith("lokr") for name in names) and len(names) > 1:
        raise ConfigError(
            "a LoKr beside another adapter", where="lora", cure="draw with one of them alone"
        )
    peft_layers.activate(denoiser, names)


def _has_magnitude(layer: Layer) -> bool:
    return isinstance(layer, LowRank) and layer.magnitude is not None


@torch.no_grad()
def _attach(
    denoiser: nn.Module, layers: Mapping[str, Any], adapter: str, kind: str, scale: float
) -> None:
    full_names = linear_layers(denoiser)
    plans = {full_names[name]: LayerPlan(layer.rank, 1.0) for name, layer in layers.items()}
    options = peft_layers.Kind(dora=kind == "dora", lokr=kind == "lokr")
    peft_layers.attach(denoiser, plans, options, adapter)
    for short, layer in layers.items():
        module: Any = denoiser.get_submodule(full_names[short])
        device = module.get_base_layer().weight.device
        module.scaling[adapter] = layer.scale * scale
        if isinstance(layer, LowRank):
            module.lora_A[adapter].weight.copy_(layer.down)
            module.lora_B[adapter].weight.copy_(layer.up)
            if layer.magnitude is not None:
                module.lora_magnitude_vector[adapter].weight.copy_(layer.magnitude)
            continue
        for name in LOKR:
            slots = getattr(module, name)
            if adapter in slots:
                del slots[adapter]
            if name in layer.factors:
                factor = layer.factors[name].float().to(device, copy=True)
                slots[adapter] = nn.Parameter(factor, requires_grad=False)


@torch.no_grad()
def extract_adapter(denoiser: nn.Module, adapter: str = peft_layers.TRAINED) -> Adapter:
    """The adapter of a network, by the network's own layer names; its tensors are copies."""
    layers: dict[str, Layer] = {}
    for full_name, module in peft_layers.adapted(denoiser).items():
        if adapter not in module.scaling:
            continue
        name, scale = short_name(full_name), float(module.scaling[adapter])
        slots = {
            slot: dict(getattr(module, slot, {}))
            for slot in (*LOKR, "lora_A", "lora_magnitude_vector")
        }
        if adapter in slots["lora_A"]:
            magnitude = slots["lora_magnitude_vector"].get(adapter)
            layers[name] = LowRank(
                module.lora_A[adapter].weight.detach().clone(),
                module.lora_B[adapter].weight.detach().clone(),
                scale,
                None if magnitude is None else magnitude.weight.detach().clone(),
            )
        else:
            factors = {k: slots[k][adapter].detach().clone() for k in LOKR if adapter in slots[k]}
            layers[name] = Kronecker(factors, scale, module.r[adapter])
    return Adapter(layers, RUN)


@torch.no_grad()
def merged_state(denoiser: nn.Module) -> dict[str, Tensor]:
    """The state dict of the plain network, with every active adapter added to its weights.

    The sum is formed in fp32 and rounded once to the weight's own type. The network's weights
    change in place.
    """
    gguf_linear.require_numbers(denoiser, "a merge")
    adapted = peft_layers.adapted(denoiser)
    for module in adapted.values():
        weight = module.get_base_layer().weight
        dtype = weight.dtype
        weight.data = weight.data.float()
        module.merge()
        weight.data = weight.data.to(dtype)
    adapted_names = {name for name in adapted}
    state = {}
    for name, tensor in denoiser.state_dict().items():
        layer = next((n for n in _parents(name) if n in adapted_names), None)
        if layer is None:
            state[name] = tensor
        elif name.startswith(f"{layer}.base_layer."):
            state[f"{layer}.{name.removeprefix(f'{layer}.base_layer.')}"] = tensor
    return state


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]
