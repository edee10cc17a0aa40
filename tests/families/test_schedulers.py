"""SDXL releases with other schedulers draw as diffusers draws them, or are refused by name."""

import json
import shutil
from typing import Any

import pytest
import torch

from tests import releases_stability
from tests.families import drawing
from tests.families.scheduler_settings import (
    COSXL,
    EDM,
    LEADING,
    REFUSED,
    SCHEDULERS,
    TABLE,
    TRAILING,
    ZERO,
    V,
)
from tinyflux_pl.core import rng
from tinyflux_pl.core.errors import ConfigError

HEIGHT, WIDTH = 32, 48
SUPPORTED: dict[str, tuple[str, dict[str, Any], int]] = {  # scheduler, settings, steps
    "v-prediction": (
        "EulerDiscreteScheduler",
        {**TABLE, **V, "timestep_spacing": "leading", "steps_offset": 1},
        3,
    ),
    "no offset": (
        "EulerDiscreteScheduler",
        {**TABLE, "timestep_spacing": "leading", "steps_offset": 0},
        3,
    ),
    "other betas": (
        "EulerDiscreteScheduler",
        {"beta_start": 0.001, "beta_end": 0.03, "timestep_spacing": "leading"},
        3,
    ),
    "zero terminal SNR": ("EulerDiscreteScheduler", {**TABLE, **V, **ZERO, **TRAILING}, 4),
    "linspace": ("EulerDiscreteScheduler", {**TABLE, "timestep_spacing": "linspace"}, 4),
    "Karras": ("EulerDiscreteScheduler", {**TABLE, **TRAILING, "use_karras_sigmas": True}, 4),
    "exponential": (
        "EulerDiscreteScheduler",
        {**TABLE, **TRAILING, "use_exponential_sigmas": True},
        4,
    ),
    "the table's end": (
        "EulerDiscreteScheduler",
        {**TABLE, **TRAILING, "final_sigmas_type": "sigma_min"},
        4,
    ),
    "Lightning, 4 steps": ("EulerDiscreteScheduler", {**TABLE, **TRAILING}, 4),
    "Lightning, 1 step": (
        "EulerDiscreteScheduler",
        {**TABLE, **TRAILING, "prediction_type": "sample"},
        1,
    ),
    "Turbo, 1 step": ("EulerAncestralDiscreteScheduler", {**TABLE, **TRAILING}, 1),
    "Turbo, 4 steps": ("EulerAncestralDiscreteScheduler", {**TABLE, **TRAILING}, 4),
    "DDIM": (
        "DDIMScheduler",
        {**TABLE, "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1},
        4,
    ),
    "DDIM, zero terminal SNR": (
        "DDIMScheduler",
        {**TABLE, **V, **ZERO, **TRAILING, "clip_sample": False},
        4,
    ),
    "DPM-Solver++": ("DPMSolverMultistepScheduler", {**TABLE}, 5),
    "DPM-Solver++, leading": (
        "DPMSolverMultistepScheduler",
        {**TABLE, **LEADING, "steps_offset": 1},
        5,
    ),
    "Playground": ("EDMDPMSolverMultistepScheduler", EDM, 5),
    "Playground, Euler": ("EDMEulerScheduler", EDM, 5),
    "CosXL": (
        "EDMEulerScheduler",
        {**COSXL, **V},
        5,
    ),
}


@pytest.fixture(scope="module")
def xl(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sdxl")
    return folder, releases_stability.sdxl(folder)


def put(folder, kind, **settings):
    """The release's scheduler becomes this one."""
    index = json.loads((folder / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", kind]
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "scheduler" / "scheduler_config.json").write_text(
        json.dumps({"_class_name": kind, **settings})
    )


def edit(file, **changes):
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def actual(folder, steps, *overrides):
    return drawing.project_pipeline(
        "sdxl", folder, HEIGHT, WIDTH, f"sampler.steps={steps}", *overrides
    )


def reference(pipeline, built, steps, monkeypatch, kind, **options):
    """diffusers' image from the same noise; what an ancestral scheduler adds is ours, too."""
    count = iter(range(1000))

    def fresh(shape, **_):
        return rng.normal(shape[1:], 3, "sampling/ancestral", [0], step=next(count))

    module = __import__(f"diffusers.schedulers.{SCHEDULERS[kind]}", fromlist=["_"])
    if hasattr(module, "randn_tensor"):
        monkeypatch.setattr(module, "randn_tensor", fresh)
    size = dict(height=HEIGHT, width=WIDTH, num_inference_steps=steps, output_type="pt")
    scale = {"guidance_scale": 5.0, **options}
    return pipeline(prompt=drawing.PROMPT, latents=drawing.noise(built), **size, **scale).images


@pytest.mark.parametrize("name", SUPPORTED)
def test_the_scheduler_of_a_release_sets_the_sampler(xl, name, monkeypatch):
    import diffusers

    folder, pipeline = xl
    kind, settings, steps = SUPPORTED[name]
    put(folder, kind, **settings)
    pipeline.scheduler = getattr(diffusers, kind).from_config(settings)
    built = actual(folder, steps)
    image = reference(pipeline, built, steps, monkeypatch, kind)
    assert drawing.difference(drawing.draw(built), image) <= 1e-4


@pytest.mark.parametrize("name", REFUSED)
def test_unsupported_scheduler_settings_are_refused_before_weights_are_read(xl, name, monkeypatch):
    from tinyflux_pl.weights import load_release

    kind, settings, says = REFUSED[name]
    put(xl[0], kind, **settings)
    monkeypatch.setattr(load_release, "fill", None)
    with pytest.raises(ConfigError, match=says) as error:
        actual(xl[0], 3)
    assert "scheduler_config.json" in error.value.where and len(str(error.value).splitlines()) == 3


def test_command_line_settings_take_precedence_over_the_release(xl):
    put(xl[0], "LCMScheduler", **TABLE)
    explicit = ("sampler=euler", "path=vp", "model.prediction=epsilon")
    assert actual(xl[0], 3, *explicit).sampler.settings.spacing == "even"
    put(xl[0], "EulerDiscreteScheduler", **TABLE, **TRAILING, **V)
    built = actual(xl[0], 3, "sampler.spacing=leading")
    assert (built.sampler.settings.spacing, built.denoiser.prediction) == ("leading", "v")


def test_unread_scheduler_settings_are_reported_once_except_common_ones(xl, capsys):
    relics = dict(
        clip_sample=False, set_alpha_to_one=False, skip_prk_steps=True, trained_betas=None
    )
    put(xl[0], "EulerDiscreteScheduler", **TABLE, **relics, of_tomorrow=1)
    edit(xl[0] / "model_index.json", of_the_day_after=True)
    actual(xl[0], 3)
    actual(xl[0], 3)
    output = capsys.readouterr().out
    assert output.count("of_tomorrow") == 1 and output.count("of_the_day_after") == 1
    assert not any(relic in output for relic in relics)


@pytest.mark.parametrize("zeros", [True, False])
def test_the_unconditional_follows_model_index_json(xl, zeros, monkeypatch):
    folder, pipeline = xl
    put(folder, "EulerDiscreteScheduler", **TABLE, timestep_spacing="leading", steps_offset=1)
    edit(folder / "model_index.json", force_zeros_for_empty_prompt=zeros)
    import diffusers

    settings = dict(TABLE, timestep_spacing="leading", steps_offset=1)
    pipeline.scheduler = diffusers.EulerDiscreteScheduler(**settings)
    pipeline.register_to_config(force_zeros_for_empty_prompt=zeros)
    built = actual(folder, 3)
    image = reference(pipeline, built, 3, monkeypatch, "EulerDiscreteScheduler")
    assert bool(built.sampler.text.null().tokens.any()) == (not zeros)
    assert drawing.difference(drawing.draw(built), image) <= 1e-4


def test_playground_with_latent_statistics_equals_diffusers(xl, tmp_path, monkeypatch):
    import diffusers

    folder = shutil.copytree(xl[0], tmp_path / "playground")
    put(folder, "EDMDPMSolverMultistepScheduler", **EDM)
    statistics = dict(
        latents_mean=[-1.6, 1.9, -1.4, 2.5], latents_std=[8.5, 5.9, 6.5, 5.2], scaling_factor=0.5
    )
    edit(folder / "vae" / "config.json", **statistics)
    pipeline = drawing.diffusers_pipeline("StableDiffusionXLPipeline", folder)
    assert isinstance(pipeline.scheduler, diffusers.EDMDPMSolverMultistepScheduler)
    built = actual(folder, 5)
    image = reference(pipeline, built, 5, monkeypatch, "EDMDPMSolverMultistepScheduler")
    assert drawing.difference(drawing.draw(built), image) <= 1e-4
    assert built.sampler.codec.scale == 1.0  # 0.5, over the deviation of the data


def test_a_bare_network_uses_the_scheduler_of_its_release(xl):
    put(xl[0], "EulerDiscreteScheduler", **TABLE, **TRAILING, **V)
    built = actual(xl[0] / "unet", 3, f"release.weights='{xl[0]}'")
    assert (built.sampler.settings.spacing, built.denoiser.prediction) == ("trailing", "v")


@pytest.mark.parametrize("markers", [("v_pred",), ("v_pred", "ztsnr"), ("edm_mean", "edm_std")])
def test_prediction_markers_in_a_single_file_are_applied_or_refused(tmp_path, markers):
    from safetensors.torch import save_file

    from tests.app.runs import settings
    from tinyflux_pl.app.released.release_settings import with_release_settings

    save_file({name: torch.zeros(0) for name in markers}, tmp_path / "xl.safetensors")
    overrides = ("model=sdxl", f"model.weights='{tmp_path / 'xl.safetensors'}'", "prompt=red")
    config = settings("generate", tmp_path, *overrides)
    if "edm_mean" in markers:
        with pytest.raises(ConfigError, match="EDM network"):
            with_release_settings(config)
        return
    supported_settings = with_release_settings(config)
    assert supported_settings.model["prediction"] == "v"
    assert supported_settings.path["zero_terminal_snr"] == ("ztsnr" in markers)
    assert supported_settings.sampler["spacing"] == (
        "trailing" if "ztsnr" in markers else "leading"
    )
    assert with_release_settings(supported_settings) == supported_settings


def test_guidance_is_refused_for_a_step_distilled_release(tmp_path):
    (tmp_path / "model_index.json").write_text(
        json.dumps({"_class_name": "Flux2KleinPipeline", "is_distilled": True})
    )
    with pytest.raises(ConfigError, match=r"step-distilled[\s\S]*guidance=none sampler\.steps=4"):
        drawing.project_pipeline("flux2_klein_4b", tmp_path, HEIGHT, WIDTH)
