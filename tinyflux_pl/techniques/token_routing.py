"""Token routing around the middle blocks: TREAD (Krause et al. 2025, arXiv 2501.04765)."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from tinyflux_pl.core import rng
from tinyflux_pl.core.block_stack import StackBlock, replaced_forward
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.protocols import Denoiser
from tinyflux_pl.techniques.technique import Regression, StepInputs


class TokenRouting:
    """A random `share` of each sample's image tokens skips the blocks from `first` to `last`.

    They come back unchanged after the last, and the loss covers all tokens: steps are cheaper, and
    early blocks get a shorter way to the loss. `first` and `last` are shares of the stack of
    blocks. The tokens that skip are a function of (seed, sample, step). ConfigError for shares out
    of order, and for a network whose blocks need all of their tokens.
    """

    name = "token_routing"
    reads_blocks = True

    def __init__(
        self, share: float = 0.5, first: float = 0.2, last: float = 0.8, seed: int = 0
    ) -> None:
        if not 0 <= share < 1:
            raise ConfigError(
                f"share is {share}",
                where="technique.token_routing.share",
                cure="from 0 to below 1: the share of tokens that skip blocks",
            )
        if not 0 <= first < last <= 1:
            raise ConfigError(
                f"first is {first} and last {last}",
                where="technique.token_routing",
                cure="shares of the blocks with 0 <= first < last <= 1",
            )
        self.share, self.first, self.last, self.seed = share, first, last, seed

    def check(self, denoiser: Denoiser) -> None:
        """Its blocks must take a part of their tokens."""
        blocks = denoiser.block_stack()
        if denoiser.hint_shape(1, 1) is not None:
            raise ConfigError(
                "a control branch adds to all image tokens of a block",
                where="technique.token_routing",
                cure="technique=none with method=controlnet",
            )
        if not blocks or any(block.selected is None for block in self.routed(blocks)):
            raise ConfigError(
                f"the blocks of {denoiser.name} need all of their image tokens",
                where="technique.token_routing",
                cure="technique=none, or model= of TinyFlux or Flux Core",
            )

    def routed(self, blocks: Sequence[StackBlock]) -> Sequence[StackBlock]:
        """The blocks that tokens skip, at least one."""
        start = min(round(self.first * len(blocks)), len(blocks) - 1)
        return blocks[start : max(start + 1, round(self.last * len(blocks)))]

    def applied(self, denoiser: Denoiser, inputs: StepInputs) -> Generator[None]:
        tokens = inputs.image_tokens
        count = max(1, round((1 - self.share) * tokens))
        order = rng.normal((tokens,), self.seed, "token_routing", inputs.sample_ids, inputs.step)
        kept = order.argsort(1)[:, :count].sort(1).values
        route = _Route(inputs.to_device(kept), tokens)
        blocks = self.routed(denoiser.block_stack())
        with ExitStack() as stack:
            for block in blocks:
                stack.enter_context(
                    replaced_forward(
                        block.module,
                        partial(
                            route.run,
                            block,
                            block.module.forward,
                            opens=block is blocks[0],
                            closes=block is blocks[-1],
                        ),
                    )
                )
            yield

    def loss(self, regression: Regression) -> Tensor | None:
        return None


class _Route:
    """The tokens of one forward pass that go through the blocks, and those that wait."""

    def __init__(self, kept: Int[Tensor, "b k"], tokens: int) -> None:
        self.kept, self.tokens = kept, tokens
        self.waiting: Tensor | None = None

    def run(
        self,
        block: StackBlock,
        forward: Callable[..., Any],
        *args: Any,
        opens: bool,
        closes: bool,
        **keywords: Any,
    ) -> Any:
        """A block's output for the kept tokens; from the last block on all are there again."""
        inputs = block.inputs(args, keywords)
        assert block.selected is not None, "TokenRouting.check asks for it"
        if opens:
            text, image = _divided(inputs[block.image], self.tokens)
            self.waiting = image
            kept = image.gather(1, self._rows(image))
            inputs[block.image] = torch.cat((text, kept), 1)
        chosen = block.selected(inputs, self.kept, self.tokens)
        output = forward(**{name: value for name, value in chosen.items() if name != "self"})
        if not closes:
            return output
        assert self.waiting is not None, "the first block has run"
        text, image = _divided(block.image_of(output), self.kept.shape[1])
        joint = self.waiting.scatter(1, self._rows(image), image.to(self.waiting.dtype))
        return block.with_image(output, torch.cat((text, joint), 1))

    def _rows(self, image: Tensor) -> Tensor:
        return self.kept[..., None].expand(-1, -1, image.shape[-1])


def _divided(stream: Tensor, tokens: int) -> tuple[Tensor, Tensor]:
    """Text, if the stream has any, and the last `tokens`, which are the image's."""
    length = stream.shape[1] - tokens
    return stream[:, :length], stream[:, length:]
