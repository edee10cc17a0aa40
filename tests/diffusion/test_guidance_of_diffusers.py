"""Our rules of guidance give what diffusers' guiders give."""

import pytest
import torch

from tinyflux_pl.diffusion import guidance as g
from tinyflux_pl.diffusion import guidance_rules as rules
from tinyflux_pl.diffusion.paths import LinearPath

SHAPE = (3, 4, 5, 5)


def draws(count):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(SHAPE, generator=generator) for _ in range(count)]


def actual(cond, uncond, scale, **settings):
    t = torch.full((len(cond),), 0.4)
    guidance = g.Guidance(scale, **settings)
    return guidance.combine(cond, uncond, torch.zeros_like(cond), t, LinearPath(), scale)


@pytest.mark.parametrize("rescale", [0.0, 0.7])
@pytest.mark.parametrize("scale", [1.5, 7.5])
def test_cfg_with_and_without_rescaling_equals_diffusers(scale, rescale):
    from diffusers.guiders import ClassifierFreeGuidance

    cond, uncond = draws(2)
    guider = ClassifierFreeGuidance(scale, guidance_rescale=rescale)
    reference = guider.forward(pred_cond=cond, pred_uncond=uncond).pred
    torch.testing.assert_close(actual(cond, uncond, scale, rescale=rescale), reference)


def test_cfg_zero_star_equals_diffusers():
    from diffusers.guiders import ClassifierFreeZeroStarGuidance

    cond, uncond = draws(2)
    guider = ClassifierFreeZeroStarGuidance(4.0, zero_init_steps=0)
    guider.set_state(step=1, num_inference_steps=10, timestep=torch.tensor(0.4))
    reference = guider.forward(pred_cond=cond, pred_uncond=uncond).pred
    torch.testing.assert_close(actual(cond, uncond, 4.0, kind="cfg_zero"), reference)


@pytest.mark.parametrize("eta, limit", [(0.0, 0.0), (0.3, 2.0), (1.0, 15.0)])
def test_apg_with_momentum_equals_diffusers_over_three_steps(eta, limit):
    """diffusers adds s to what its `use_original_formulation` starts from; ours adds s - 1."""
    from diffusers.guiders.adaptive_projected_guidance import MomentumBuffer, normalized_guidance

    buffer, momentum = MomentumBuffer(-0.5), rules.Momentum(-0.5)
    predictions = draws(6)
    for cond, uncond in zip(predictions[:3], predictions[3:], strict=True):
        reference = normalized_guidance(
            cond, uncond, 3.0, buffer, eta, limit, use_original_formulation=True
        )
        bound = torch.full((len(cond),), limit) if limit else None
        guided = rules.apg(cond, momentum.update(cond - uncond), 4.0, cond, eta, bound)
        torch.testing.assert_close(guided, reference)


def test_momentum_of_velocities_equals_momentum_of_data():
    path, momentum, expected = LinearPath(1), rules.Momentum(-0.5), rules.Momentum(-0.5)
    guidance = g.Guidance(4.0, "apg", momentum=-0.5, eta=0.2)
    cond, uncond, x = draws(3)
    for time in (0.9, 0.4):
        t = torch.full((len(x),), time)
        x0, x0_uncond = (x - time * v for v in (cond, uncond))
        data = rules.apg(x0, expected.update(x0 - x0_uncond), 4.0, x0, 0.2)
        out = guidance.combine(cond, uncond, x, t, path, 4.0, momentum=momentum)
        torch.testing.assert_close(x - time * out, data, rtol=1e-4, atol=1e-4)


def test_skip_layer_guidance_with_cfg_equals_diffusers():
    from diffusers.guiders import SkipLayerGuidance

    cond, uncond, skipped = draws(3)
    guider = SkipLayerGuidance(
        4.0,
        skip_layer_guidance_scale=2.8,
        skip_layer_guidance_layers=[1],
        skip_layer_guidance_start=0.0,
    )
    guider.set_state(step=1, num_inference_steps=100, timestep=torch.tensor(0.4))
    guider.skip_layer_guidance_start = 0.0
    reference = guider.forward(pred_cond=cond, pred_uncond=uncond, pred_cond_skip=skipped).pred
    t = torch.full((len(cond),), 0.4)
    guided = g.Guidance(4.0, skip_layers=[1]).combine(
        cond, uncond, torch.zeros_like(cond), t, LinearPath(), 4.0, skipped=skipped
    )
    torch.testing.assert_close(guided, reference)


def test_dynamic_thresholding_equals_diffusers():
    from diffusers import DDPMScheduler

    (data,) = (3 * draw for draw in draws(1))
    scheduler = DDPMScheduler(dynamic_thresholding_ratio=0.9, sample_max_value=1e6)
    torch.testing.assert_close(
        rules.dynamic_threshold(data, 0.9), scheduler._threshold_sample(data)
    )
