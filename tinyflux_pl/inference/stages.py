"""The stages of drawing: each brings its part to the device and frees the part before it."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from tinyflux_pl.core.protocols import Codec, TextEncoder
from tinyflux_pl.engine.peak_memory import Measured, measured
from tinyflux_pl.engine.placement import Placement


@dataclass
class Stages:
    """Called with a stage's name before it begins; `growth` is how far memory rose in each, in
    bytes: on an accelerator what was allocated, on a CPU what was resident.

    Under a placement that frees, encoders and codec are read again when their stage comes back.
    """

    denoiser: Any  # core.protocols.Denoiser, a module
    codec: Codec
    text: TextEncoder
    device: torch.device
    placement: Placement
    growth: dict[str, int] = field(default_factory=dict)
    _stage: str = ""
    _measured: Measured | None = None
    _stack: ExitStack = field(default_factory=ExitStack)

    def __post_init__(self) -> None:
        if self.placement.denoiser == "blocks":
            offload_blocks(self.denoiser.net, self.device)
        elif self.placement.denoiser == "resident":
            self.denoiser.to(self.device)
        self.text.to("cpu" if self.placement.text == "host" else self.device)
        self.codec.to(self.device)

    def __call__(self, name: str) -> None:
        """Leave the stage before, and enter this one."""
        if name == self._stage or not self.placement.freed:
            return
        self.end()
        self._stage = name
        self._measured = self._stack.enter_context(measured(self.device))
        if self.placement.denoiser == "moved" and name == "denoise":
            self.denoiser.to(self.device)

    def end(self) -> None:
        """Leave the last stage: its part is freed, and its growth is noted."""
        if self._measured is None:
            return
        self._stack.close()
        if self._measured.bytes is not None:
            before = self.growth.get(self._stage, 0)
            self.growth[self._stage] = max(self._measured.bytes, before)
        self._measured = None
        if self.placement.freed and self._stage == "text":
            self.text.free()
        if self.placement.freed and self._stage in ("encode", "decode"):
            self.codec.free()
        if self.placement.denoiser == "moved" and self._stage == "denoise":
            self.denoiser.to("cpu")
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self._stage = ""


def offload_blocks(network: nn.Module, device: torch.device) -> None:
    """Bring the blocks of a network to the device one after another, by diffusers' group
    offloading; on CUDA the next block travels on a stream of its own.
    """
    from diffusers.hooks import apply_group_offloading

    apply_group_offloading(
        network,
        onload_device=device,
        offload_device=torch.device("cpu"),
        offload_type="block_level",
        num_blocks_per_group=1,
        use_stream=device.type == "cuda",
    )
