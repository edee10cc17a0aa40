"""Guidance rules have their limiting cases, and `Guidance` decides when the null is evaluated."""

import itertools

import pytest
import torch

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.diffusion import guidance as g
from tinyflux_pl.diffusion import guidance_rules as rules
from tinyflux_pl.diffusion.paths import LinearPath, VPPath, data_share, match_log_snr
from tinyflux_pl.diffusion.prediction import convert, to_data_and_noise

SHAPE = (3, 4, 5, 5)


def draws(count):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(SHAPE, generator=generator) for _ in range(count)]


def test_scale_one_gives_the_conditional_prediction_for_every_rule():
    cond, uncond, x = draws(3)
    t = torch.full((3,), 0.4)
    for kind in g.KINDS:
        out = g.Guidance(1.0, kind).combine(cond, uncond, x, t, LinearPath(), 1.0)
        torch.testing.assert_close(out, cond)


def test_cfg_extrapolates():
    cond, uncond = draws(2)
    torch.testing.assert_close(rules.cfg(cond, uncond, 3.0), cond + 2 * (cond - uncond))


def test_cfg_zero_is_invariant_to_the_norm_of_the_unconditional():
    cond, uncond = draws(2)
    torch.testing.assert_close(rules.cfg_zero(cond, cond, 4.0), cond)
    torch.testing.assert_close(
        rules.cfg_zero(cond, uncond, 4.0), rules.cfg_zero(cond, 7 * uncond, 4.0)
    )
    # the fitted unconditional: cond - fit is orthogonal to it
    residual = rules.cfg_zero(cond, uncond, 0.0)
    assert ((cond - residual) * residual).flatten(1).sum(1).abs().max() < 1e-3


def test_apg_with_eta_one_and_no_limit_is_cfg():
    cond, uncond, along = draws(3)
    torch.testing.assert_close(
        rules.apg(cond, cond - uncond, 3.0, along, eta=1.0), rules.cfg(cond, uncond, 3.0)
    )


def test_apg_adds_nothing_along_the_data():
    cond, uncond, along = draws(3)
    added = rules.apg(cond, cond - uncond, 3.0, along, eta=0.0) - cond
    assert (added * along).flatten(1).sum(1).abs().max() < 1e-3
    assert added.abs().max() > 0.1


@pytest.mark.parametrize("path", [LinearPath(0), LinearPath(1), VPPath()], ids=str)
def test_apg_on_velocities_equals_apg_on_x0(path):
    cond, uncond, x = draws(3)
    t = torch.full((3,), 0.4)
    combined = g.Guidance(4.0, "apg", norm_limit=2.0, eta=0.3).combine(
        cond, uncond, x, t, path, 4.0
    )
    x0s = [to_data_and_noise("velocity", v, x, t, path)[0] for v in (cond, uncond)]
    x0 = rules.apg(x0s[0], x0s[0] - x0s[1], 4.0, x0s[0], 0.3, torch.full((3,), 2.0))
    torch.testing.assert_close(
        combined, convert(x0, x, t, path, "x0", "velocity"), rtol=1e-3, atol=1e-3
    )


def test_rescale_restores_the_conditionals_deviation():
    cond, uncond = draws(2)
    guided = rules.cfg(cond, uncond, 8.0)
    torch.testing.assert_close(
        rules.rescale(guided, cond, 1.0).flatten(1).std(1), cond.flatten(1).std(1)
    )
    assert torch.equal(rules.rescale(guided, cond, 0.0), guided)


def test_dynamic_threshold_changes_only_samples_beyond_the_bound():
    small, large = torch.full((1, 100), 0.5), torch.linspace(-4, 4, 100)[None]
    out = rules.dynamic_threshold(torch.cat([small, large]), percentile=0.95)
    assert torch.equal(out[:1], small)
    assert float(out[1].abs().max()) == pytest.approx(1.0) and (out[1].diff() >= 0).all()


def test_thresholding_bounds_x0_inside_guidance():
    cond, uncond, x = (3 * d for d in draws(3))
    t, path = torch.full((3,), 0.4), LinearPath()
    out = g.Guidance(8.0, threshold=0.9).combine(cond, uncond, x, t, path, 8.0)
    assert to_data_and_noise("velocity", out, x, t, path)[0].abs().max() < 1.001


def test_guidance_scale_follows_its_interval_and_curve():
    interval = g.Guidance(5.0, interval=(0.25, 0.5))
    assert [interval.scale_at(s) for s in (0.0, 0.25, 0.5, 0.51)] == [1.0, 5.0, 5.0, 1.0]
    for shape, peak in itertools.product(("triangle", "cosine"), (0.2, 0.5, 0.8)):
        curve = g.Guidance(5.0, curve=shape, peak=peak)
        scales = [curve.scale_at((i + 0.5) / 1000) for i in range(1000)]
        assert sum(scales) / 1000 == pytest.approx(5.0, abs=0.01) and max(scales) == pytest.approx(
            9.0, abs=0.05
        )


@pytest.mark.parametrize("curve", ["triangle", "cosine"])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_a_curve_has_the_mean_of_constant_guidance_over_the_remaining_steps(curve, shift):
    even = torch.linspace(0, 1, 8)
    levels = (even / (shift - (shift - 1) * even)).tolist()
    guidance = g.Guidance(5.0, curve=curve, interval=(0.1, 0.9))
    gain = guidance.gain_on(levels)
    steps = [(a, b - a) for a, b in itertools.pairwise(levels) if 0.1 <= a <= 0.9]
    mean = sum(guidance.scale_at(a, gain) * length for a, length in steps)
    assert mean / sum(length for _, length in steps) == pytest.approx(5.0)


def test_the_interval_is_the_same_noise_level_on_every_path():
    linear, vp = LinearPath(), VPPath()
    t = torch.tensor([0.3, 0.6])
    matched = match_log_snr(linear, vp, t)
    torch.testing.assert_close(data_share(linear, t), data_share(vp, matched), atol=1e-4, rtol=0)


def test_only_cfg_zero_has_zero_init_steps():
    assert g.Guidance(5.0, "cfg_zero", zero_until=0.04).is_zero_init_step(0.03)
    assert not g.Guidance(5.0, "cfg_zero", zero_until=0.04).is_zero_init_step(0.05)
    assert not g.Guidance(5.0, "cfg", zero_until=0.04).is_zero_init_step(0.0)


@pytest.mark.parametrize(
    "settings, says",
    [
        ({"kind": "cgf"}, "apg"),
        ({"curve": "sine"}, "triangle"),
        ({"scale": -1.0}, "no guidance"),
        ({"interval": (0.5, 0.2)}, "noise"),
        ({"interval": (0.0, 0.5, 1.0)}, "noise"),
        ({"rescale": 1.5}, "between 0 and 1"),
        ({"peak": 1.0}, "peak"),
        ({"momentum": -1.0}, "momentum"),
        ({"skip_layers": [-1]}, "from 0"),
        ({"skip_interval": (0.5, 0.2)}, "noise"),
    ],
)
def test_invalid_settings_are_refused(settings, says):
    with pytest.raises(ConfigError, match=says):
        g.Guidance(**settings)
