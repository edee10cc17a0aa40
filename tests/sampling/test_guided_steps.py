"""Intervals of guidance into which no step falls are named, by the levels that solvers ask at."""

from dataclasses import replace

import pytest

from tests.sampling.test_loop import SHAPE, Gaussian, prompt
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.diffusion.guidance import Guidance
from tinyflux_pl.diffusion.paths import LinearPath, VPPath, data_share
from tinyflux_pl.sampling import guided_steps
from tinyflux_pl.sampling.loop import SamplerSettings, sample


@pytest.mark.parametrize("solver", ["euler", "heun", "dpmpp_2m", "unipc"])
@pytest.mark.parametrize("path", [LinearPath(1), VPPath()], ids=["linear", "vp"])
def test_the_levels_are_those_at_which_the_network_is_evaluated(path, solver):
    evaluated = set()
    denoiser = Gaussian(path, "velocity")
    denoiser.register_forward_pre_hook(
        lambda _, inputs: evaluated.add(round(float(data_share(path, inputs[1][:1])[0]), 5))
    )
    settings = SamplerSettings(steps=5, solver=solver, guidance=Guidance(1.0))
    sample(denoiser, prompt(2.0), shape=SHAPE, sample_ids=[9], seed=3, settings=settings)
    levels = guided_steps.evaluated_levels(settings, path, tokens=4)
    assert {round(level, 5) for level in levels} == evaluated


@pytest.mark.parametrize(
    ("guidance", "lines"),
    [
        ({"interval": (0.3, 0.4)}, ["guidance.interval=[0.3,0.4]"]),
        ({"interval": (0.3, 0.6)}, []),
        ({"interval": (0.0, 0.0)}, []),  # the first step, from pure noise
        ({"interval": (0.3, 0.4), "scale": 1.0}, []),
        ({"skip_layers": (1,)}, ["guidance.skip_interval=[0.01,0.2]"]),
        ({"skip_layers": (1,), "skip_interval": (0.2, 0.3)}, []),
    ],
)
def test_an_interval_between_two_steps_is_named(guidance, lines):
    chosen = Guidance(**{"scale": 3.0, **guidance})
    settings = SamplerSettings(steps=4, solver="euler", guidance=chosen)
    lines_of = guided_steps.unguided(settings, LinearPath(1), tokens=4)
    assert len(lines_of) == len(lines)
    assert all(
        line in text and "0, 0.25, 0.5, 0.75" in text
        for line, text in zip(lines, lines_of, strict=True)
    )
    shifted = replace(settings, shift=3.0)  # whose second step begins at 0.1
    assert guided_steps.reaches(
        (0.05, 0.15), guided_steps.evaluated_levels(shifted, LinearPath(1), 4)
    )


def test_blocks_and_inputs_that_a_network_lacks_are_refused():
    denoiser = Gaussian(LinearPath(1), "velocity")
    with pytest.raises(ConfigError, match="no guidance input"):
        guided_steps.require_supported(Guidance(embedded=3.5), denoiser)
    with pytest.raises(ConfigError, match="no blocks"):
        guided_steps.require_supported(Guidance(skip_layers=(1,)), denoiser)
    guided_steps.require_supported(Guidance(), denoiser)
