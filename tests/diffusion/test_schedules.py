"""Ramps and learning rates at their corners."""

import pytest

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.diffusion.schedules import LearningRate, Ramp


def test_without_ramp_steps_a_ramp_is_constant():
    assert [Ramp(0.3)(step) for step in (0, 5)] == [0.3, 0.3]


def test_cosine_warmup_is_honoured_with_every_decay():
    for decay in ("cosine", "linear", "constant"):
        assert LearningRate(100, 10, decay, warmup_kind="cosine")(1) == pytest.approx(
            0.0244717, abs=1e-6
        )


def test_the_floor_holds_after_the_end():
    for kind in ("span", "clip"):
        assert LearningRate(100, 10, "linear", floor=0.2, floor_kind=kind)(1000) == pytest.approx(
            0.2
        )


def test_warmup_as_long_as_training_does_not_divide_by_zero():
    assert LearningRate(10, 10)(9) == 0.9 and LearningRate(10, 10)(10) == 1.0


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda: Ramp(1.0, 5, "exp"), "linear"),
        (lambda: LearningRate(10, decay="step"), "cosine"),
        (lambda: LearningRate(10, floor=2.0), "0 to 1"),
        (lambda: LearningRate(0), "total_steps >= 1"),
    ],
)
def test_invalid_settings_are_refused(make, says):
    with pytest.raises(ConfigError, match=says):
        make()
