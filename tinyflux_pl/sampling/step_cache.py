"""Reuse of transformer blocks' outputs between steps whose inputs hardly differ.

While it is installed, a cache stands in for the calls of a denoiser's blocks (core.block_stack).
Where it passes them by, the last addition of the blocks to the image stream is made again. Each
branch of guidance has a state of its own; the first and the last step are always computed.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from tinyflux_pl.core.block_stack import StackBlock, replaced_forward
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.protocols import Denoiser
from tinyflux_pl.diffusion.cache_rules import CacheSettings, hits, relative_change


@dataclass
class BranchState:
    """Cache state of one guidance branch.

    The measure of its last step, the last output of the blocks, the accumulated movement and the
    number of skipped steps.
    """

    measure: Tensor | None = None
    addition: Tensor | None = None
    moved: float = 0.0
    passed: int = 0


@dataclass
class StepCache:
    """A step cache with counts: `forwards` of all branches, and `hits` that skipped the blocks.

    `movements` are the relative changes of the measure, and `changes` those of the blocks' image
    stream after them: what a calibration is fitted to.
    """

    settings: CacheSettings
    forwards: int = 0
    hits: int = 0
    movements: list[float] = field(default_factory=list)
    changes: list[float] = field(default_factory=list)
    _states: dict[tuple[str, int], BranchState] = field(default_factory=dict)
    _outputs: dict[tuple[str, int], Tensor] = field(default_factory=dict)
    _key: tuple[str, int] = ("", 0)
    _is_forced: bool = False
    _is_bypassed: bool = False
    _is_hit: bool = False
    _base: Tensor | None = None  # the image stream that `addition` is added to

    @property
    def hit_rate(self) -> float:
        """The share of forward passes that skipped the blocks."""
        return self.hits / self.forwards if self.forwards else 0.0

    def begin(self, branch: str, *, forced: bool = False, bypassed: bool = False) -> None:
        """Name the branch of the next denoiser call.

        `forced` computes it, `bypassed` does not use the cache.
        """
        self._key, self._is_forced, self._is_bypassed = (branch, -1), forced, bypassed

    @contextmanager
    def installed(self, blocks: Sequence[StackBlock], name: str) -> Generator[None]:
        """Inside, replace the calls of these blocks, starting with an empty cache."""
        require_blocks(blocks, self.settings.kind, name)
        self._states.clear()
        self._outputs.clear()
        with ExitStack() as stack:
            for i, block in enumerate(blocks):
                run = block.module.forward
                call = self._middle if 0 < i < len(blocks) - 1 else self._first if i == 0 else None
                stack.enter_context(
                    replaced_forward(block.module, _bound(call or self._last, block, run))
                )
            yield

    def _first(self, block: StackBlock, run: Callable[..., Any], args: Any, keywords: Any) -> Any:
        if self._is_bypassed:
            return run(*args, **keywords)
        self._key = (self._key[0], self._key[1] + 1)  # a denoiser may call its network repeatedly
        state = self._states.setdefault(self._key, BranchState())
        inputs = block.inputs(args, keywords)
        image = inputs[block.image]
        if self.settings.kind == "teacache":
            assert block.modulated is not None
            self._judge(state, block.modulated(inputs))
            self._base = image
            return block.unchanged(args, keywords) if self._is_hit else run(*args, **keywords)
        output = run(*args, **keywords)
        self._base = block.image_of(output)
        self._judge(state, self._base - image)
        return output

    def _judge(self, state: BranchState, measure: Tensor) -> None:
        """Decide whether the blocks are skipped, and store the measure."""
        self.forwards += 1
        self._is_hit = False
        if state.measure is not None:
            movement = relative_change(measure, state.measure)
            self.movements.append(movement)
            possible = state.addition is not None and not self._is_forced
            self._is_hit, state.moved = hits(self.settings, movement, state.moved, state.passed)
            self._is_hit = self._is_hit and possible
        if self._is_hit:
            self.hits += 1
            state.passed += 1
        else:
            state.moved, state.passed = 0.0, 0
        if not self._is_hit or self.settings.kind == "teacache":
            state.measure = measure

    def _middle(self, block: StackBlock, run: Callable[..., Any], args: Any, keywords: Any) -> Any:
        if self._is_hit and not self._is_bypassed:
            return block.unchanged(args, keywords)
        return run(*args, **keywords)

    def _last(self, block: StackBlock, run: Callable[..., Any], args: Any, keywords: Any) -> Any:
        if self._is_bypassed:
            return run(*args, **keywords)
        state, base = self._states[self._key], self._base
        assert base is not None
        tokens = base.shape[1]
        if not self._is_hit:
            output = run(*args, **keywords)
            image = block.image_of(output)[:, -tokens:]
            if self._key in self._outputs:
                self.changes.append(relative_change(image, self._outputs[self._key]))
            self._outputs[self._key] = image
            state.addition = image - base
            return output
        output = block.unchanged(args, keywords)
        assert state.addition is not None
        image = block.image_of(output).clone()
        image[:, -tokens:] += state.addition
        return block.with_image(output, image)


def require_blocks(blocks: Sequence[StackBlock], kind: str, name: str) -> None:
    """Raise ConfigError for a network without blocks that a cache of this kind could skip."""
    if len(blocks) < 2:
        cure = "cache.kind=none, or a transformer"
        raise ConfigError("no blocks that a cache could skip", where=name, cure=cure)
    if kind == "teacache" and blocks[0].modulated is None:
        cure = "cache.kind=first_block"
        raise ConfigError("TeaCache does not know this network", where=name, cure=cure)


def cached(cache: StepCache | None, denoiser: Denoiser, steps: int) -> AbstractContextManager[None]:
    """The cache installed on a denoiser for so many steps; ConfigError if it cannot be."""
    if cache is None or cache.settings.kind == "none":
        return nullcontext()
    cache.settings.require_steps(steps)
    return cache.installed(denoiser.block_stack(), denoiser.name)


def _bound(call: Callable[..., Any], block: StackBlock, run: Callable[..., Any]) -> Any:
    return lambda *args, **keywords: call(block, run, args, keywords)
