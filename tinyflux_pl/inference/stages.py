"""The stages of sampling: each moves its part to the device and frees the one before."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from tinyflux_pl.core.alignment import align
from tinyflux_pl.core.protocols import Codec, TextEncoder
from tinyflux_pl.engine.block_offload import BlockOffload
from tinyflux_pl.engine.block_sizes import blocks_of
from tinyflux_pl.engine.peak_memory import Measured, measured
from tinyflux_pl.engine.placement import Placement


@dataclass
class Stages:
    """Moves parts at the start of each stage; called with the stage's name.

    `growth` is the rise of memory in each, in bytes: allocated on an accelerator, resident on a
    CPU. Under a placement that frees, encoders and codec are read again when their stage comes
    back.
    """

    denoiser: Any  # core.protocols.Denoiser, a module
    codec: Codec
    text: TextEncoder
    device: torch.device
    placement: Placement
    growth: dict[str, int] = field(default_factory=dict)
    _stage: str = ""
    _measured: Measured | None = None
    _offload: BlockOffload | None = None
    _stack: ExitStack = field(default_factory=ExitStack)

    def __post_init__(self) -> None:
        if self.placement.denoiser == "blocks":
            blocks = [block.module for block in self.denoiser.block_stack()]
            count = self.placement.in_turn
            self._offload = BlockOffload(self.denoiser, blocks, self.device, count)
        elif self.placement.denoiser == "resident":
            self._move_denoiser()
        self.text.to("cpu" if self.placement.text == "host" else self.device)
        if self.placement.text_in_turn:
            self.text.moved_by(self._move_encoder)
        self.codec.to(self.device)

    def _move_denoiser(self) -> None:
        self.denoiser.to(self.device)
        align(self.denoiser)

    def _move_encoder(self, name: str, network: nn.Module) -> None:
        count = dict(self.placement.text_in_turn).get(name, 0)
        if count:
            BlockOffload(network, blocks_of(network), self.device, count).load()
        else:
            network.to(self.device)

    def __call__(self, name: str) -> None:
        """Leave the stage before, and enter this one."""
        if name == self._stage or not self.placement.freed:
            return
        self.end()
        self._stage = name
        self._measured = self._stack.enter_context(measured(self.device))
        if name == "denoise" and self._offload is not None:
            self._offload.load()
        elif name == "denoise" and self.placement.denoiser == "moved":
            self._move_denoiser()

    def end(self) -> None:
        """End the last stage: its part is freed, and its growth is recorded."""
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
        if self._stage == "denoise" and self._offload is not None:
            self._offload.unload()
        elif self._stage == "denoise" and self.placement.denoiser == "moved":
            self.denoiser.to("cpu")
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self._stage = ""
