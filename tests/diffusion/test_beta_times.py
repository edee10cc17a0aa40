"""Beta times: the right law on any path, one to one from uniform numbers."""

import pytest
import torch

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.diffusion.paths import LinearPath
from tinyflux_pl.diffusion.shifts import flux_shift
from tinyflux_pl.diffusion.timesteps import Beta, Stratified

EVEN = (torch.arange(20_000) + 0.5) / 20_000


@pytest.mark.parametrize(("a", "b"), [(2.5, 2.0), (1.0, 1.0), (1.5, 4.0), (30.0, 30.0)])
def test_quantiles_equal_those_of_the_beta_distribution(a, b):
    drawn = torch.distributions.Beta(a, b).sample((400_000,))
    share = Beta(a, b)(EVEN, LinearPath(noise_at=1))
    for q in (0.02, 0.25, 0.5, 0.9, 0.99):
        assert share.quantile(q) == pytest.approx(float(drawn[:400_000:4].quantile(q)), abs=0.004)
    assert (share.diff() >= 0).all() and share.mean() == pytest.approx(a / (a + b), abs=1e-4)


def test_the_default_favours_noise_on_every_path():
    share = Beta()(EVEN, LinearPath(noise_at=1))
    assert share.mean() == pytest.approx(0.5556, abs=1e-3) and share.std() == pytest.approx(
        0.2119, abs=1e-3
    )
    assert torch.allclose(Beta()(EVEN, LinearPath(noise_at=0)), 1 - share, atol=1e-6)
    assert torch.allclose(
        Beta(shift=3.0)(EVEN, LinearPath(noise_at=1)), flux_shift(share, 3.0), atol=1e-5
    )
    ends = Beta()(torch.tensor([2**-25, 1 - 2**-25]), LinearPath(noise_at=1))
    assert ends.min() >= 1e-4 and ends.max() <= 1 - 1e-4


def test_beta_times_can_be_stratified_and_invalid_parameters_are_refused():
    strata = Stratified(Beta())(torch.full((8,), 0.5), LinearPath(noise_at=1))
    assert torch.allclose(strata, Beta()((torch.arange(8) + 0.5) / 8, LinearPath(noise_at=1)))
    for wrong in ({"a": 0.5}, {"b": 0.0}, {"shift": -1.0}, {"a": float("nan")}):
        with pytest.raises(ConfigError):
            Beta(**wrong)
