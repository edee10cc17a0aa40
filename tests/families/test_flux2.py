"""FLUX.2 from disk to image equals diffusers' pipelines on equal weights, noise and prompt."""

import numpy as np
import pytest
import torch
from PIL import Image

from tests import releases_flux2
from tests.families import drawing, table

HEIGHT, WIDTH, STEPS = 32, 48, 3
LENGTH, LAYERS = 64, (1, 2, 4)
SIZE = dict(
    height=HEIGHT,
    width=WIDTH,
    num_inference_steps=STEPS,
    max_sequence_length=LENGTH,
    output_type="pt",
)
SMALL = (f"text.length={LENGTH}", f"text.layers={list(LAYERS)}", f"sampler.steps={STEPS}")
PARAMETERS = {
    "flux2_dev": (32_223_281_152, 32.22),
    "flux2_klein_4b": (3_875_544_576, 3.88),
    "flux2_klein_9b": (9_078_581_248, 9.08),
}


@pytest.fixture(scope="module")
def dev(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dev")
    return folder, releases_flux2.flux2(folder, guided=True)


@pytest.fixture(scope="module")
def klein(tmp_path_factory):
    folder = tmp_path_factory.mktemp("klein")
    return folder, releases_flux2.flux2(folder, guided=False)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder, files = tmp_path_factory.mktemp("pictures"), []
    for k, size in enumerate(((77, 70), (68, 101))):
        pixels = np.random.default_rng(k).integers(0, 255, (9, 9, 3), np.uint8)
        Image.fromarray(pixels).resize(size).save(folder / f"{k}.png")
        files.append(folder / f"{k}.png")
    return files


def reference(pipeline, built, **options):
    arguments = {
        "prompt": drawing.PROMPT,
        "latents": drawing.noise(built),
        "text_encoder_out_layers": LAYERS,
    }
    return pipeline(**{**SIZE, **arguments, "guidance_scale": 4.0, **options}).images


def test_dev_equals_diffusers(dev):
    folder, pipeline = dev
    built = drawing.project_pipeline("flux2_dev", folder, HEIGHT, WIDTH, *SMALL)
    table.check("flux2_dev", drawing.difference(drawing.draw(built), reference(pipeline, built)))


@pytest.mark.parametrize("size", ["4b", "9b"])
def test_klein_equals_diffusers(klein, size):
    folder, pipeline = klein
    built = drawing.project_pipeline(f"flux2_klein_{size}", folder, HEIGHT, WIDTH, *SMALL)
    table.check(
        f"flux2_klein_{size}", drawing.difference(drawing.draw(built), reference(pipeline, built))
    )


def test_references_equal_diffusers(klein, pictures):
    folder, pipeline = klein
    override = f"reference=[{','.join(map(str, pictures))}]"
    built = drawing.project_pipeline("flux2_klein_4b", folder, HEIGHT, WIDTH, *SMALL, override)
    image = reference(pipeline, built, image=[Image.open(file) for file in pictures])
    assert drawing.difference(drawing.draw(built), image) <= table.LARGEST
    assert (
        drawing.difference(drawing.draw(built), reference(pipeline, built)) > 1e-3
    )  # they are read


@pytest.mark.parametrize("side", [256, 1024, 1360])
@pytest.mark.parametrize("steps", [4, 28, 50])
def test_the_time_grid_equals_the_schedulers(side, steps):
    from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu

    from tinyflux_pl.diffusion.grids import grid
    from tinyflux_pl.diffusion.paths import LinearPath
    from tinyflux_pl.diffusion.shifts import shift_for

    tokens = (side // 16) ** 2
    scheduler = releases_flux2.scheduler(use_dynamic_shifting=True, time_shift_type="exponential")
    scheduler.set_timesteps(
        sigmas=np.linspace(1.0, 1 / steps, steps), mu=compute_empirical_mu(tokens, steps)
    )
    times = grid(steps, LinearPath(noise_at=1), shift_for("flux2", tokens, steps))
    torch.testing.assert_close(times, scheduler.sigmas, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("model", PARAMETERS)
def test_parameter_counts_equal_the_published_model(model):
    exact, billions = PARAMETERS[model]
    parameters = table.Family.of(model).parameters
    assert parameters == exact and round(parameters / 1e9, 2) == billions
