"""The state of a step cache, on blocks of plain arithmetic whose changes are known."""

import pytest
import torch
from torch import nn

from tinyflux_pl.core.block_stack import stack_of
from tinyflux_pl.diffusion.cache_rules import CacheSettings
from tinyflux_pl.sampling.step_cache import StepCache

STRAIGHT = (0.0, 0.0, 0.0, 1.0, 0.0)  # the movement itself
GROWING = [1.1**k for k in range(7)]  # each a tenth above the one before


class Grow(nn.Module):
    def forward(self, image):
        return image + 0.5 * image


def blocks():
    modules = nn.ModuleList(Grow() for _ in range(3))
    return stack_of(modules, ("image",), "image", lambda block, inputs: inputs["image"])


def cache_of(kind):
    coefficients = STRAIGHT if kind == "teacache" else ()
    return StepCache(CacheSettings(kind, 0.25, longest=100, coefficients=coefficients))


def evaluated(stack, value):
    image = torch.full((1, 2, 1), value)
    for block in stack:
        image = block.module(image)
    return float(image[0, 0, 0])


def reused(cache, stack, values):
    """For each value, whether the blocks were passed by, and the output."""
    steps = []
    for value in values:
        before = cache.hits
        cache.begin("cond")
        output = evaluated(stack, value)
        steps.append((cache.hits > before, output))
    return steps


@pytest.mark.parametrize("kind", ["first_block", "teacache"])
def test_blocks_run_again_once_the_input_changed_by_the_threshold(kind):
    """Both exceed 25 % at the third step after one that ran.

    TeaCache adds up changes from step to step (3 x 10 %), first_block compares with the step that
    ran last (1.1^3 = 33 %).
    """
    cache, stack = cache_of(kind), blocks()
    with cache.installed(stack, "grow"):
        steps = reused(cache, stack, GROWING)
    assert [hit for hit, _ in steps] == [False, True, True, False, True, True, False]
    for (hit, output), value, last in zip(
        steps, GROWING, [GROWING[k // 3 * 3] for k in range(7)], strict=True
    ):
        start = 1.5 * value if kind == "first_block" else value
        added = (1.5**3 - (1.5 if kind == "first_block" else 1)) * last
        assert output == pytest.approx(start + added if hit else 1.5**3 * value)


@pytest.mark.parametrize("kind", ["first_block", "teacache"])
def test_repeated_calls_within_a_step_have_states_of_their_own(kind):
    """A denoiser may call its network twice, with inputs that have nothing in common."""
    cache, stack = cache_of(kind), blocks()
    with cache.installed(stack, "grow"):
        for value in GROWING[:3]:
            cache.begin("cond")
            evaluated(stack, value)
            evaluated(stack, -100 * value)
    assert cache.hits == 4 and cache.forwards == 6


@pytest.mark.parametrize("kind", ["first_block", "teacache"])
def test_a_second_batch_begins_with_nothing_remembered(kind):
    cache, stack = cache_of(kind), blocks()
    for _ in range(2):
        with cache.installed(stack, "grow"):
            assert [hit for hit, _ in reused(cache, stack, [1.0, 1.0])] == [False, True]
    assert len(cache.changes) == 0 and len(cache.movements) == 2
