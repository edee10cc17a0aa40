"""The step cache: threshold 0 changes no bit, hits are counted, branches have their own state."""

import pytest
import torch

from tests.denoisers.test_conformance import FLUX3, SMALL, released
from tests.denoisers.test_conformance import STRAIGHT as STRAIGHT_PATH
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.specs import LatentSpec, TextSpec
from tinyflux_pl.core.types import TextEmbeddings
from tinyflux_pl.denoisers import flux3 as flux3_module
from tinyflux_pl.diffusion.cache_rules import CacheSettings, fitted
from tinyflux_pl.diffusion.guidance import Guidance
from tinyflux_pl.sampling.loop import SamplerSettings, sample
from tinyflux_pl.sampling.step_cache import StepCache

FLUX_LIKE = ["flux1", "flux2", "flux_core", "sd3", "tinyflux"]
STRAIGHT = (0.0, 0.0, 0.0, 1.0, 0.0)  # the movement itself


def denoiser_of(name):
    torch.manual_seed(0)
    denoiser = SMALL[name]().eval()
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return denoiser


def words(denoiser, rows):
    spec, generator = denoiser.text_spec, torch.Generator().manual_seed(1)
    tokens = torch.randn(rows, min(spec.length, 6), spec.width, generator=generator)
    mask = torch.ones(tokens.shape[:2], dtype=torch.bool)
    return TextEmbeddings(tokens, mask, torch.randn(rows, spec.pooled, generator=generator))


def drawn(denoiser, cache=None, scale=1.0, steps=12, solver="euler", **guidance):
    settings = SamplerSettings(steps, solver, Guidance(scale, **guidance))
    options = dict(sample_ids=[0, 1], seed=0, settings=settings, cache=cache)
    shape = (denoiser.latent_spec.channels, 4, 4)
    null = words(denoiser, 1) if scale != 1 else None
    return sample(denoiser, words(denoiser, 2), null, shape=shape, **options)


def settings(kind, threshold, **more):
    coefficients = STRAIGHT if kind == "teacache" else ()
    return CacheSettings(kind, threshold, coefficients=coefficients, **more)


@pytest.mark.parametrize("kind", ["first_block", "teacache"])
@pytest.mark.parametrize("name", FLUX_LIKE)
def test_threshold_zero_gives_bit_equal_samples(name, kind):
    denoiser, cache = denoiser_of(name), StepCache(settings(kind, 0.0))
    assert torch.equal(drawn(denoiser, cache), drawn(denoiser))
    assert cache.hits == 0 and cache.forwards == 12


@pytest.mark.parametrize("kind", ["first_block", "teacache"])
@pytest.mark.parametrize("name", FLUX_LIKE)
def test_a_threshold_skips_blocks_and_stays_close_to_the_uncached_sample(name, kind):
    denoiser, cache = denoiser_of(name), StepCache(settings(kind, 1e6))
    cached, plain = drawn(denoiser, cache), drawn(denoiser)
    # first and last are computed, and every fourth between: 0, 4, 8, 11
    assert cache.hits == 8 and cache.hit_rate == pytest.approx(8 / 12)
    assert not torch.equal(cached, plain)
    assert (cached - plain).square().mean() < 0.05 * plain.square().mean()
    assert torch.equal(drawn(denoiser), plain)  # nothing stays behind


def test_guidance_branches_have_separate_caches():
    denoiser = denoiser_of("tinyflux")
    cache = StepCache(settings("first_block", 1e6))
    cached = drawn(denoiser, cache, 3.0, interval=(0.0, 0.5))
    assert cache.hits > 0 and cached.isfinite().all()
    skipping = dict(skip_layers=[0], skip_interval=(0.0, 1.0))
    plain = drawn(denoiser, None, 3.0, **skipping)
    assert torch.equal(
        drawn(denoiser, StepCache(settings("first_block", 0.0)), 3.0, **skipping), plain
    )


def test_networks_and_step_counts_without_reuse_are_refused():
    with pytest.raises(ConfigError, match="no blocks"):
        from tinyflux_pl.sampling.step_cache import cached

        cached(StepCache(settings("first_block", 0.1)), denoiser_of("unet"), 12).__enter__()
    with pytest.raises(ConfigError, match="9 steps"):
        drawn(denoiser_of("tinyflux"), StepCache(settings("first_block", 0.1)), steps=9)
    with pytest.raises(ConfigError, match="does not know"):
        two = {**FLUX3, "num_single_layers": 2}
        flux3 = released(flux3_module, LatentSpec(16, 16), TextSpec(24, 6, 0), STRAIGHT_PATH, two)()
        drawn(flux3, StepCache(settings("teacache", 0.1)))
    with pytest.raises(ConfigError, match="fitted to this checkpoint"):
        CacheSettings("teacache", 0.1)


def test_fitted_coefficients_recover_the_generating_polynomial():
    movements = torch.linspace(0.01, 0.5, 40, dtype=torch.float64)
    truth = [3.0, -2.0, 0.5, 1.2, 0.01]
    changes = sum(c * movements ** (4 - k) for k, c in enumerate(truth))
    assert fitted(movements.tolist(), changes.tolist()) == pytest.approx(truth, rel=1e-3)
    with pytest.raises(ConfigError, match="too few"):
        fitted([0.1] * 8, [0.1] * 8)
