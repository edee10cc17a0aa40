"""Memory for drawing, planned from structures alone: what is counted, and what is refused before
weights are read.
"""

import pytest
import torch

from tests import releases_flux1
from tests.app.runs import run, settings
from tests.families import drawing
from tinyflux_pl.app import inference_memory
from tinyflux_pl.app.build_pipeline import pipeline
from tinyflux_pl.core.errors import ConfigError, MemoryPlanError
from tinyflux_pl.core.types import TextEmbeddings
from tinyflux_pl.engine import peak_memory
from tinyflux_pl.engine.live_bytes import LiveBytes
from tinyflux_pl.weights import load_release

MODELS = (
    "flux1_dev",
    "flux1_fill",
    "flux1_kontext",
    "flux1_schnell",
    "flux2_dev",
    "flux2_klein_4b",
)
MODELS += ("flux2_klein_9b", "flux3", "sd35_large", "sd35_medium", "sdxl")
TINY = (f"text.length={releases_flux1.TEXT_LENGTH}", "sampler.steps=2")


def planned(root, *overrides):
    return inference_memory.plan(settings("generate", root, *overrides))


def working(plan):
    return {stage.name: stage.rows.get("activations", 0) for stage in plan.memory.stages}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return releases_flux1.flux1(tmp_path_factory.mktemp("dev"), "dev")


@pytest.mark.parametrize("model", MODELS)
def test_each_model_is_planned_at_full_size_without_weights(model, tmp_path):
    plan = planned(tmp_path, f"model={model}")
    weights = {part.name: part.bytes for part in plan.parts}
    assert weights["denoiser"] > 4e9 and weights["codec"] > 3e8 and len(weights) > 2
    assert all(stage.rows["denoiser"] == weights["denoiser"] for stage in plan.memory.stages)
    assert (
        plan.size == (1024, 1024)
        and working(plan)["denoise"] > 2**27
        and working(plan)["decode"] > 2**30
    )


def test_a_published_tinyflux_is_planned_too(tmp_path):
    plan = planned(
        tmp_path, "model=deep_v42", "codec=pixels", "text=hashed", "height=64", "width=64"
    )
    assert (
        plan.parts[0].bytes > 2**29 and working(plan)["denoise"] > 2**20 and plan.size == (64, 64)
    )


def test_pictures_guidance_and_references_make_it_more(tmp_path):
    one = working(planned(tmp_path, "model=sd35_medium", "guidance.scale=1.0"))
    guided = working(planned(tmp_path, "model=sd35_medium", "guidance.scale=4.0"))
    four = working(planned(tmp_path, "model=sd35_medium", "guidance.scale=1.0", "n=4"))
    smaller = working(
        planned(tmp_path, "model=sd35_medium", "guidance.scale=1.0", "height=512", "width=512")
    )
    assert (
        guided["denoise"] == pytest.approx(2 * one["denoise"], rel=0.02)
        and guided["decode"] == one["decode"]
    )
    assert four["denoise"] == pytest.approx(4 * one["denoise"], rel=0.02)
    assert smaller["decode"] == pytest.approx(one["decode"] / 4, rel=0.05)
    asked = ("model=flux1_kontext", "height=512", "width=512")
    alone, beside = (
        working(planned(tmp_path, *asked, *more)) for more in ((), ("reference=photo.png",))
    )
    # by the release's rule it has four times the image's pixels
    assert beside["denoise"] > 3 * alone["denoise"]


def test_a_reference_is_counted_in_its_own_size(tmp_path):
    from PIL import Image

    asked = ("model=flux1_kontext", "model.reference_size=as_is", "height=512", "width=512")
    used = []
    for name, size in (("small.png", (128, 128)), ("large.png", (1024, 768))):
        Image.new("RGB", size).save(tmp_path / name)
        used.append(working(planned(tmp_path, *asked, f"reference='{tmp_path / name}'"))["denoise"])
    assert used[1] > 2 * used[0]


def test_the_plan_is_what_drawing_has_alive(folder, tmp_path):
    asked = [
        "model=flux1_dev",
        f"model.weights='{folder}'",
        "height=96",
        "width=64",
        *drawing.EXACT,
        *TINY,
    ]
    config = settings("generate", tmp_path, "prompt=night", *asked)
    made, plan = pipeline(config), inference_memory.plan(config)
    draw = dict(prompts=["night"], seed=1)
    made.sampler.images(made.denoiser, **draw)  # which reads what is read at first use
    told = made.sampler.text.encode(["night"])
    made.sampler.text.encode = lambda prompts: TextEmbeddings(
        told.tokens.clone(), told.mask.clone(), told.pooled.clone()
    )
    with LiveBytes() as count:
        made.sampler.images(made.denoiser, **draw)
    assert max(working(plan).values()) == pytest.approx(
        max(live for _, live in count.history), rel=0.1
    )


def test_what_cannot_fit_is_refused_before_a_weight_is_read(folder, tmp_path, monkeypatch):
    asked = [
        "model=flux1_dev",
        f"model.weights='{folder}'",
        "prompt=night",
        f"output='{tmp_path / 'drawn'}'",
        *TINY,
    ]
    asked += ["height=64", "width=64"]
    monkeypatch.setattr(peak_memory, "available_bytes", lambda device: 1000)
    with monkeypatch.context() as patch:
        patch.setattr(load_release, "fill", None)
        with pytest.raises(MemoryPlanError, match=r"(?s)'decode' needs .* denoiser .*plan=skip"):
            run("generate", tmp_path, *asked)
    run("generate", tmp_path, *asked, "plan=skip")
    assert (tmp_path / "drawn" / "image_0000.png").is_file()


@pytest.mark.parametrize(
    ("asked", "share", "cure"),
    [
        (["model=sd35_medium"], 0.99, "height="),
        (["model=sd35_medium"], 0.5, "a smaller model"),
        (["model=sd35_medium", "text.sequential=false"], 0.5, "text.sequential=true"),
        (["model=flux2_klein_4b"], 0.5, "a smaller model"),
    ],
)
def test_the_cure_is_one_that_helps(asked, share, cure, tmp_path):
    many = ("n=64", "guidance.scale=1.0") if share > 0.9 else ()
    plan = planned(tmp_path, *asked, *many)
    with pytest.raises(MemoryPlanError) as caught:
        plan.require(int(share * plan.memory.worst(plan.host).total))
    assert cure in caught.value.cure
    plan.require(plan.memory.worst(plan.host).total)


@pytest.mark.parametrize("fits", [1, 3, 8])
def test_as_many_images_are_drawn_at_once_as_fit(folder, tmp_path, monkeypatch, capsys, fits):
    asked = [
        "model=flux1_dev",
        f"model.weights='{folder}'",
        "prompt=night",
        "n=8",
        "height=96",
        "width=96",
        *TINY,
    ]
    config = settings("generate", tmp_path, *asked)
    exactly = inference_memory.plan(config, fits)
    monkeypatch.setattr(
        peak_memory, "available_bytes", lambda device: exactly.memory.worst(exactly.host).total
    )
    made = pipeline(config)
    assert made.sampler.max_batch == fits
    assert (f"{fits} of 8 images are drawn at once" in capsys.readouterr().out) == (fits < 8)
    with pytest.raises(MemoryPlanError, match="batch_size=1"):
        pipeline(config.replace(n=16, batch_size=16))
    assert pipeline(config.replace(batch_size=1)).sampler.max_batch == 1


@pytest.mark.parametrize("given", ["0", "-3", "many", "1.5", "true"])
def test_a_batch_size_that_is_none_is_refused(folder, tmp_path, given):
    for asked in (
        ("model=flux1_dev", f"model.weights='{folder}'", *TINY),
        (f"checkpoint='{tmp_path}'",),
    ):
        with pytest.raises(ConfigError, match=r"batch_size (is|must be)"):
            run("generate", tmp_path, *asked, "prompt=night", f"batch_size={given}")


def test_without_a_gpu_its_plan_is_made_and_drawing_on_it_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    asked = ("model=sdxl", "hardware=gpu_12gb")
    assert not planned(tmp_path, *asked).host
    with pytest.raises(ConfigError, match="no usable GPU"):
        run("generate", tmp_path, *asked, "model.random_weights=true", "prompt=night")


@pytest.mark.parametrize("size", ["height=104", "height=3", "width=100"])
@pytest.mark.parametrize("plan", ["only", "check", "skip"])
def test_a_size_that_cannot_be_cut_into_tokens_is_named(folder, size, plan, tmp_path):
    asked = ("model=flux1_dev", f"model.weights='{folder}'", "prompt=night", f"plan={plan}", *TINY)
    with pytest.raises(ConfigError, match="cannot be cut into cells of 16") as caught:
        run("generate", tmp_path, *asked, size)
    assert caught.value.where == size.split("=")[0]


@pytest.mark.parametrize("asked", [["model=flux1_dev", "plan=maybe"], ["plan=only"]])
def test_a_plan_of_nothing_or_of_an_unknown_kind_is_refused(asked, tmp_path):
    with pytest.raises(ConfigError, match="plan"):
        run("generate", tmp_path, *asked)
