"""The contract of a training technique."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from tinyflux_pl.core.protocols import Denoiser
from tinyflux_pl.core.transfer import to_device


@dataclass(frozen=True)
class StepInputs:
    """The coordinates of one forward pass of training.

    `image_tokens` counts the tokens of the image stream, those of reference pictures included;
    `device` is where the network computes.
    """

    sample_ids: Sequence[int]
    step: int
    image_tokens: int
    device: torch.device

    def to_device(self, tensor: Tensor) -> Tensor:
        """The tensor where the network computes."""
        return to_device(tensor, self.device)


@dataclass(frozen=True)
class Regression:
    """One forward pass of training, in the denoiser's own prediction space.

    `output` and `target` (B, C, H, W) in fp32; `mean` reduces elementwise errors (B, C, H, W) to
    (B,) as the loss does, with the masks of the data and without padding.
    """

    output: Float[Tensor, "b c h w"]
    target: Float[Tensor, "b c h w"]
    mean: Callable[[Tensor], Tensor]


class Technique(Protocol):
    """A change to training steps; drawing and validation never see it.

    `name` is that of its term in the log. `reads_blocks` True: it replaces or watches the network's
    blocks, which a compiled network does not allow.
    """

    name: str
    reads_blocks: bool

    def check(self, denoiser: Denoiser) -> None:
        """Raise ConfigError for a network that it does not fit; weights may be on meta."""

    def applied(self, denoiser: Denoiser, inputs: StepInputs) -> Generator[None]:
        """Yield once; the forward pass runs meanwhile."""

    def loss(self, regression: Regression) -> Tensor | None:
        """Loss of each sample (B,) to add to that of training, already weighted; None: nothing."""


@contextmanager
def all_applied(
    techniques: Mapping[str, Technique], denoiser: Denoiser, inputs: StepInputs
) -> Generator[None]:
    """Every technique at once, the first one outermost."""
    with ExitStack() as stack:
        for technique in techniques.values():
            stack.enter_context(contextmanager(technique.applied)(denoiser, inputs))
        yield
