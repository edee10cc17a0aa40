"""Validation on a fixed grid of times: the same every time, on either clock."""

import pytest
import torch

from tests.objectives.test_flow import Spy, make_batch
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.diffusion.paths import LinearPath
from tinyflux_pl.objectives.validation import FixedGrid


def test_validation_is_deterministic_and_names_its_times():
    batch, grid = make_batch(8, experts=False), FixedGrid([0.25, 0.75], seed=1)
    first, second = grid.errors(Spy(), batch), grid.errors(Spy(), batch)
    assert {k: float(v) for k, v in first.items()} == {k: float(v) for k, v in second.items()}
    assert set(first) == {"validation/loss", "validation/loss_t_0.25", "validation/loss_t_0.75"}
    assert float(FixedGrid([0.25, 0.75], seed=2).errors(Spy(), batch)["validation/loss"]) != float(
        first["validation/loss"]
    )


def test_a_grid_point_has_the_same_noise_level_on_either_clock():
    batch, spies = make_batch(8, experts=False), (Spy(LinearPath()), Spy(LinearPath(noise_at=1)))
    for spy in spies:
        FixedGrid([0.3], seed=0).errors(spy, batch)
    assert torch.allclose(spies[0].seen[0], spies[1].seen[0])


@pytest.mark.parametrize("times", [[1.5], [0.5, -0.1], [float("nan")], []])
def test_a_validation_grid_lies_between_noise_and_data(times):
    with pytest.raises(ConfigError) as caught:
        FixedGrid(times)
    assert (
        caught.value.where == "callbacks.validation.times"
        and "0 (noise) to 1 (data)" in caught.value.cure
    )
    FixedGrid([0, 1])
