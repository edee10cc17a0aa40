"""Sampling from a picture: strength is the way that is taken, and what a mask keeps is kept."""

import pytest
import torch

from tests.sampling.test_loop import PLAIN, SHAPE, Gaussian, prompt
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.diffusion.paths import LinearPath, VPPath
from tinyflux_pl.sampling.initial import Initial
from tinyflux_pl.sampling.loop import SamplerSettings, sample

PATHS = [LinearPath(0), LinearPath(1), VPPath(zero_terminal_snr=True)]
SOLVERS = ["euler", "heun", "dpmpp_2m", "unipc"]


def drawn(path, initial=None, steps=10, solver="euler"):
    denoiser = Gaussian(path, "velocity" if isinstance(path, LinearPath) else "v").eval()
    settings = SamplerSettings(steps, solver, PLAIN)
    options = dict(shape=SHAPE, sample_ids=[0, 1], seed=0, settings=settings, initial=initial)
    return sample(denoiser, prompt(2.0), **options), len(denoiser.rows)


def picture(value=-3.0):
    return torch.full((1, *SHAPE), value)


@pytest.mark.parametrize("path", PATHS, ids=str)
def test_full_strength_ignores_the_initial_image(path):
    assert torch.equal(drawn(path, Initial(picture(), 1.0))[0], drawn(path)[0])


@pytest.mark.parametrize("strength, calls", [(0.05, 1), (0.3, 3), (0.99, 9), (1.0, 10)])
def test_strength_is_the_fraction_of_steps_taken(strength, calls):
    assert drawn(LinearPath(1), Initial(picture(), strength))[1] == calls


@pytest.mark.parametrize("path", PATHS, ids=str)
def test_lower_strength_stays_closer_to_the_initial_image(path):
    strengths = (0.2, 0.6, 1.0)
    images = [drawn(path, Initial(picture(), strength))[0] for strength in strengths]
    distances = [float((image - picture()).abs().mean()) for image in images]
    assert distances == sorted(distances) and distances[0] < 0.5 * distances[-1]


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("path", PATHS, ids=str)
def test_kept_regions_equal_the_image_and_the_rest_is_sampled_as_without_mask(path, solver):
    """The Gaussian's cells do not see one another."""
    mask = torch.zeros(1, 1, *SHAPE[1:])
    mask[..., :2] = 1
    inside, _ = drawn(path, Initial(picture(), 1.0, mask), solver=solver)
    alone, _ = drawn(path, solver=solver)
    torch.testing.assert_close(
        inside[..., 2:], picture().expand(2, -1, -1, -1)[..., 2:], atol=1e-4, rtol=0
    )
    torch.testing.assert_close(inside[..., :2], alone[..., :2], atol=1e-4, rtol=1e-4)


def test_a_soft_mask_blends_image_and_sample():
    (kept,), (half,), (anew,) = (
        drawn(LinearPath(1), Initial(picture(), 1.0, torch.full((1, 1, 4, 4), value)))[0][:1]
        for value in (0.0, 0.5, 1.0)
    )
    assert kept.mean() < half.mean() < anew.mean()


def test_stochastic_solvers_are_refused_with_a_mask():
    mask = torch.zeros(1, 1, *SHAPE[1:])
    with pytest.raises(ConfigError, match="new noise"):
        drawn(VPPath(), Initial(picture(), 0.5, mask), solver="euler_ancestral")


@pytest.mark.parametrize("strength", [0.0, -0.5, 1.5])
def test_a_strength_out_of_range_is_refused(strength):
    with pytest.raises(ConfigError, match="strength"):
        Initial(picture(), strength)
