"""The module: gradients are clipped where they are to be, and measured either way."""

import pytest
import torch

from tests.training.small_run import Small


def norms(folder, clip):
    """Of one step: what was measured, and what the optimizer found."""
    small = Small(folder, 1)
    small.module.clip = clip
    judge, found = small.guard.judge, []

    def look(optimizer, norm, step):
        grads = [p.grad for p in small.net.parameters()]
        found.extend((float(norm), float(torch.nn.utils.get_total_norm(grads))))
        judge(optimizer, norm, step)

    small.guard.judge = look
    small.run()
    return found


def test_a_gradient_is_scaled_down_to_the_clip_or_left_as_it_is(tmp_path):
    measured, left = norms(tmp_path / "free", None)
    assert left == pytest.approx(measured) and measured > 0.1
    assert norms(tmp_path / "tight", 0.01) == pytest.approx([measured, 0.01], rel=1e-4)
    assert norms(tmp_path / "wide", 1e6) == pytest.approx([measured, measured])
