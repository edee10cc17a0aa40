"""FLUX.1 and SD3.5 releases with another shift sample as in diffusers, or are refused by name."""

import json

import pytest

from tests import releases_flux1, releases_stability
from tests.families import drawing
from tests.families.test_schedulers import HEIGHT, WIDTH, put
from tinyflux_pl.core.errors import ConfigError


@pytest.mark.parametrize(
    ("settings", "shift", "spacing"),
    [
        (dict(shift=6.0), 6.0, "even"),
        (dict(use_dynamic_shifting=True), "flux1", "even"),
        (
            dict(use_dynamic_shifting=True, max_shift=1.3, base_image_seq_len=128),
            [0.5, 1.3, 128, 4096],
            "even",
        ),
    ],
)
def test_flux1_uses_the_shift_of_its_scheduler(tmp_path, settings, shift, spacing):
    folder = releases_flux1.flux1(tmp_path, "dev")
    put(folder, "FlowMatchEulerDiscreteScheduler", **settings)
    built = drawing.project_pipeline(
        "flux1_dev", folder, HEIGHT, WIDTH, "sampler.steps=3", "text.length=16"
    )
    assert (built.sampler.settings.shift, built.sampler.settings.spacing) == (shift, spacing)
    pipeline = drawing.diffusers_pipeline("FluxPipeline", folder)
    packed = pipeline._pack_latents(drawing.noise(built), 1, 16, HEIGHT // 8, WIDTH // 8)
    options = dict(
        height=HEIGHT, width=WIDTH, num_inference_steps=3, output_type="pt", max_sequence_length=16
    )
    image = pipeline(prompt=drawing.PROMPT, latents=packed, guidance_scale=3.5, **options).images
    assert drawing.difference(drawing.draw(built), image) <= 1e-4


@pytest.mark.parametrize(
    "settings", [dict(shift=6.0), dict(use_dynamic_shifting=True, base_shift=0.6)]
)
def test_sd35_uses_the_shift_of_its_scheduler(tmp_path, settings):
    releases_stability.sd35(tmp_path)
    put(tmp_path, "FlowMatchEulerDiscreteScheduler", **settings)
    overrides = ("sampler.steps=3", "text.t5_length=16")
    built = drawing.project_pipeline("sd35_large", tmp_path, HEIGHT, WIDTH, *overrides)
    pipeline = drawing.diffusers_pipeline("StableDiffusion3Pipeline", tmp_path)
    options = dict(
        height=HEIGHT, width=WIDTH, num_inference_steps=3, output_type="pt", max_sequence_length=16
    )
    latents = drawing.noise(built)
    image = pipeline(prompt=drawing.PROMPT, latents=latents, guidance_scale=3.5, **options).images
    assert drawing.difference(drawing.draw(built), image) <= 1e-4


@pytest.mark.parametrize(
    "setting", [dict(use_karras_sigmas=True), dict(shift_terminal=0.1), dict(invert_sigmas=True)]
)
def test_unsupported_flow_scheduler_settings_are_refused(tmp_path, setting):
    (tmp_path / "scheduler").mkdir()
    scheduler = {"_class_name": "FlowMatchEulerDiscreteScheduler", **setting}
    (tmp_path / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    with pytest.raises(ConfigError, match=next(iter(setting))):
        drawing.project_pipeline("flux1_dev", tmp_path, HEIGHT, WIDTH)
