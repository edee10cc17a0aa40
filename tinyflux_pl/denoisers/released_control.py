"""diffusers' control networks next to a frozen released network, initialised from its weights."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from tinyflux_pl.denoisers import gguf_linear

SUBFOLDER = "controlnet"  # of an exported folder, as pipelines name it


class ReleasedControl(nn.Module):
    """`net`, diffusers' class `kind` in the structure of `base` but for `changes`, fp32.

    Weights that both have are copied; the layers through which it adds are zero, as diffusers makes
    them, so that an untrained one changes nothing. `strength` multiplies what it adds.
    """

    layouts: ClassVar[tuple[str, ...]] = ("diffusers",)

    def __init__(self, kind: str, base: Any, **changes: Any) -> None:
        import diffusers

        super().__init__()
        gguf_linear.require_numbers(base, "a control branch")
        self.strength = 1.0
        network: Any = getattr(diffusers, kind)
        parameters = inspect.signature(network.__init__).parameters
        structure = {key: value for key, value in base.config.items() if key in parameters}
        self.net = network(**{**structure, **changes}).float()
        copy_common(base, self.net)

    def forward(self, **inputs: Any) -> tuple[Any, ...]:
        """Terms added to the base's blocks, in diffusers' order; floating inputs become fp32."""
        return self.net(
            **{name: single(value) for name, value in inputs.items()},
            conditioning_scale=self.strength,
            return_dict=False,
        )

    def write(self, folder: Path) -> nn.Module:
        """Write `controlnet/` as diffusers reads it; returns the network as it was read back."""
        self.net.save_pretrained(folder / SUBFOLDER, safe_serialization=True)
        return type(self.net).from_pretrained(
            folder,
            subfolder=SUBFOLDER,
            local_files_only=True,
            use_safetensors=True,
            low_cpu_mem_usage=False,
        )

    def enable_gradient_checkpointing(self) -> None:
        """Keep only each block's input for the backward pass and compute the rest again."""
        self.net.enable_gradient_checkpointing()

    def freeze_unused(self, block: str) -> None:
        """Freeze the layers of a last joint block whose text output is not read."""
        unread = ("attn.to_add_out", "attn.add_q_proj", "attn.norm_added_q", "ff_context")
        for name, parameter in self.net.get_submodule(block).named_parameters():
            if name.startswith(tuple(f"{prefix}." for prefix in unread)):
                parameter.requires_grad_(False)


@torch.no_grad()
def copy_common(source: nn.Module, target: nn.Module) -> None:
    """Copy every tensor that both have by name and shape."""
    state = source.state_dict()
    for name, tensor in target.state_dict().items():
        if name in state and state[name].shape == tensor.shape:
            tensor.copy_(state[name])


def single(value: Any) -> Any:
    """fp32, of a floating tensor or of those in a mapping."""
    if isinstance(value, dict):
        return {name: single(part) for name, part in value.items()}
    is_floating = isinstance(value, torch.Tensor) and value.is_floating_point()
    return value.float() if is_floating else value
