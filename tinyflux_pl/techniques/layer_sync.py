"""Self-distillation between the blocks of one network: LayerSync (arXiv 2510.12581)."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from tinyflux_pl.core.block_stack import StackBlock
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.protocols import Denoiser
from tinyflux_pl.techniques.technique import Regression, StepInputs


class LayerSync:
    """Align the image tokens after an early block with those after a later one, held constant.

    Adds weight * (1 - cosine), averaged over tokens. `early` and `late` are shares of the stack of
    blocks. ConfigError for shares out of order and for a network whose blocks cannot be told.
    """

    name = "layer_sync"
    reads_blocks = True

    def __init__(self, weight: float = 0.2, early: float = 0.3, late: float = 0.7) -> None:
        if not 0 < early < late <= 1:
            raise ConfigError(
                f"early is {early} and late {late}",
                where="technique.layer_sync",
                cure="shares of the blocks with 0 < early < late <= 1",
            )
        if weight < 0:
            raise ConfigError(
                f"weight is {weight}",
                where="technique.layer_sync.weight",
                cure="a number from 0 on",
            )
        self.weight, self.early, self.late = weight, early, late
        self._tokens: dict[int, Tensor] = {}

    def check(self, denoiser: Denoiser) -> None:
        """It needs two blocks."""
        if len(denoiser.block_stack()) < 2:
            raise ConfigError(
                f"{denoiser.name} has fewer than two transformer blocks to compare",
                where="technique.layer_sync",
                cure="technique=none, or a model of transformer blocks",
            )

    def applied(self, denoiser: Denoiser, inputs: StepInputs) -> Generator[None]:
        blocks = denoiser.block_stack()
        self._tokens = {}
        with ExitStack() as stack:
            for number in self.layers(len(blocks)):
                stack.enter_context(_watched(blocks[number], self._tokens, number))
            yield

    def layers(self, count: int) -> tuple[int, int]:
        """The numbers of the early and the late block among `count`."""
        late = max(1, round(self.late * count) - 1)
        return min(max(0, round(self.early * count) - 1), late - 1), late

    def loss(self, regression: Regression) -> Tensor | None:
        early, late = (self._tokens[number] for number in sorted(self._tokens))
        count = min(early.shape[1], late.shape[1])  # a joint stream has the text's tokens first
        early, late = early[:, -count:], late[:, -count:]
        self._tokens = {}
        similarity = F.cosine_similarity(early.float(), late.detach().float(), dim=-1)
        return self.weight * (1 - similarity).flatten(1).mean(1)


def _watched(block: StackBlock, tokens: dict[int, Tensor], number: int) -> RemovableHandle:
    """Keep the block's image stream until the context of the returned handle ends."""

    def keep(module: object, args: object, output: Any) -> None:
        tokens[number] = block.image_of(output)

    return block.module.register_forward_hook(keep)
