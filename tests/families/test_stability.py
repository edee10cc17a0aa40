"""SDXL and SD3.5 from disk to image equal diffusers' pipelines on equal weights and noise."""

import numpy as np
import pytest
import torch

from tests import releases_stability
from tests.app.runs import configuration
from tests.families import drawing, table

HEIGHT, WIDTH, STEPS, T5_LENGTH = 32, 48, 3, 16
SIZE = dict(height=HEIGHT, width=WIDTH, num_inference_steps=STEPS, output_type="pt")
SMALL = (f"sampler.steps={STEPS}",)
SD3 = (*SMALL, f"text.t5_length={T5_LENGTH}")
PARAMETERS = {  # and billions with the table of positions, which a release stores beside them
    "sdxl": (2_567_463_684, 2.57),
    "sd35_large": (8_056_627_520, 8.15),
    "sd35_medium": (2_243_171_520, 2.47),
}


@pytest.fixture(scope="module")
def xl(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sdxl")
    return folder, releases_stability.sdxl(folder)


@pytest.fixture(scope="module", params=["large", "medium"])
def three(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    dual = (0, 1) if request.param == "medium" else ()
    return request.param, folder, releases_stability.sd35(folder, dual)


def reference(pipeline, built, **options):
    return pipeline(
        prompt=drawing.PROMPT, latents=drawing.noise(built), **{**SIZE, **options}
    ).images


def test_sdxl_equals_diffusers(xl):
    folder, pipeline = xl
    built = drawing.project_pipeline("sdxl", folder, HEIGHT, WIDTH, *SMALL)
    table.check(
        "sdxl",
        drawing.difference(drawing.draw(built), reference(pipeline, built, guidance_scale=5.0)),
    )


def test_sdxl_with_a_negative_prompt_equals_diffusers(xl):
    folder, pipeline = xl
    built = drawing.project_pipeline("sdxl", folder, HEIGHT, WIDTH, *SMALL)
    image = reference(pipeline, built, guidance_scale=5.0, negative_prompt="blue")
    assert drawing.difference(drawing.draw(built, negative_prompt="blue"), image) <= table.LARGEST


def test_sd35_equals_diffusers(three):
    size, folder, pipeline = three
    built = drawing.project_pipeline(f"sd35_{size}", folder, HEIGHT, WIDTH, *SD3)
    options = {
        "guidance_scale": {"large": 3.5, "medium": 4.5}[size],
        "max_sequence_length": T5_LENGTH,
    }
    table.check(
        f"sd35_{size}",
        drawing.difference(drawing.draw(built), reference(pipeline, built, **options)),
    )


def test_sd35_without_t5_equals_diffusers(three):
    size, folder, pipeline = three
    built = drawing.project_pipeline(
        f"sd35_{size}", folder, HEIGHT, WIDTH, *SD3, "text.drop_t5=true"
    )
    encoder, pipeline.text_encoder_3 = pipeline.text_encoder_3, None
    try:
        image = reference(
            pipeline,
            built,
            guidance_scale=built.sampler.settings.guidance.scale,
            max_sequence_length=16,
        )
    finally:
        pipeline.text_encoder_3 = encoder
    assert drawing.difference(drawing.draw(built), image) <= table.LARGEST


def test_each_component_equals_diffusers(xl, three):
    folder, pipeline = xl
    built = drawing.project_pipeline("sdxl", folder, HEIGHT, WIDTH, *SMALL)
    tokens, _, pooled, _ = pipeline.encode_prompt(drawing.PROMPT, do_classifier_free_guidance=False)
    embeddings = built.sampler.text.encode([drawing.PROMPT])
    torch.testing.assert_close(
        (embeddings.tokens, embeddings.pooled), (tokens, pooled), rtol=1e-5, atol=1e-5
    )
    assert not built.sampler.text.null().tokens.any()
    size, folder, pipeline = three
    built = drawing.project_pipeline(f"sd35_{size}", folder, HEIGHT, WIDTH, *SD3)
    overrides = dict(do_classifier_free_guidance=False, max_sequence_length=T5_LENGTH)
    tokens, _, pooled, _ = pipeline.encode_prompt([drawing.PROMPT], None, None, **overrides)
    embeddings = built.sampler.text.encode([drawing.PROMPT])
    torch.testing.assert_close(
        (embeddings.tokens, embeddings.pooled), (tokens, pooled), rtol=1e-5, atol=1e-5
    )
    image = torch.rand(1, 3, HEIGHT, WIDTH) * 2 - 1
    mode = (pipeline.vae.encode(image).latent_dist.mode() - 0.0609) * 1.5305
    torch.testing.assert_close(built.sampler.codec.encode(image), mode, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("steps", [4, 28, 40])
def test_the_time_grids_equal_the_schedulers(steps, xl):
    from diffusers import FlowMatchEulerDiscreteScheduler

    from tinyflux_pl.diffusion.grids import grid
    from tinyflux_pl.diffusion.paths import LinearPath, VPPath

    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(steps)
    torch.testing.assert_close(
        grid(steps, LinearPath(noise_at=1), 3.0, spacing="sd3"),
        scheduler.sigmas,
        rtol=1e-5,
        atol=1e-6,
    )
    euler = xl[1].scheduler
    euler.set_timesteps(steps)
    path, times = VPPath(), grid(steps, VPPath(), spacing="leading")
    assert np.array_equal((times.double() * 999).round().numpy(), euler.timesteps.numpy())
    torch.testing.assert_close(
        path.sigma(times) / path.alpha(times), euler.sigmas[:-1], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("model", PARAMETERS)
def test_parameter_counts_equal_the_published_model(model, tmp_path):
    exact, billions = PARAMETERS[model]
    assert table.Family.of(model).parameters == exact
    structure = configuration("generate", tmp_path, f"model={model}")["model"]["structure"]
    positions = structure.get("pos_embed_max_size", 0) ** 2 * structure.get(
        "caption_projection_dim", 0
    )
    assert round((exact + positions) / 1e9, 2) == billions
