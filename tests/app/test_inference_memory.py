"""Memory plan of sampling from structures alone, and refusals before weights are read."""

import pytest
import torch

from tests import releases_flux1
from tests.app.runs import run, settings
from tests.families import drawing
from tinyflux_pl.app.drawing.build_pipeline import pipeline
from tinyflux_pl.app.memory import inference_memory
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
def test_every_model_is_planned_at_full_size_without_weights(model, tmp_path):
    plan = planned(tmp_path, f"model={model}")
    weights = {part.name: part.bytes for part in plan.parts}
    assert weights["denoiser"] > 4e9 and weights["codec"] > 3e8 and len(weights) > 2
    assert all(stage.rows["denoiser"] == weights["denoiser"] for stage in plan.memory.stages)
    assert (
        plan.size == (1024, 1024)
        and working(plan)["denoise"] > 2**27
        and working(plan)["decode"] > 2**30
    )


def test_a_published_tinyflux_is_planned(tmp_path):
    plan = planned(
        tmp_path, "model=deep_v42", "codec=pixels", "text=hashed", "height=64", "width=64"
    )
    assert (
        plan.parts[0].bytes > 2**29 and working(plan)["denoise"] > 2**20 and plan.size == (64, 64)
    )


def test_planned_memory_grows_with_images_guidance_and_references(tmp_path):
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
    overrides = ("model=flux1_kontext", "height=512", "width=512")
    alone, with_reference = (
        working(planned(tmp_path, *overrides, *more)) for more in ((), ("reference=photo.png",))
    )
    # by the release's rule it has four times the image's pixels
    assert with_reference["denoise"] > 3 * alone["denoise"]


def test_a_reference_is_planned_at_its_own_size(tmp_path):
    from PIL import Image

    overrides = ("model=flux1_kontext", "model.reference_size=as_is", "height=512", "width=512")
    used = []
    for name, size in (("small.png", (128, 128)), ("large.png", (1024, 768))):
        Image.new("RGB", size).save(tmp_path / name)
        used.append(
            working(planned(tmp_path, *overrides, f"reference='{tmp_path / name}'"))["denoise"]
        )
    assert used[1] > 2 * used[0]


def test_planned_memory_equals_live_bytes_of_sampling(folder, tmp_path):
    overrides = [
        "model=flux1_dev",
        f"model.weights='{folder}'",
        "height=96",
        "width=64",
        *drawing.EXACT,
        *TINY,
    ]
    config = settings("generate", tmp_path, "prompt=night", *overrides)
    built, plan = pipeline(config), inference_memory.plan(config)
    draw = dict(prompts=["night"], seed=1)
    built.sampler.images(built.denoiser, **draw)  # which reads what is read at first use
    embeddings = built.sampler.text.encode(["night"])
    built.sampler.text.encode = lambda prompts: TextEmbeddings(
        embeddings.tokens.clone(), embeddings.mask.clone(), embeddings.pooled.clone()
    )
    with LiveBytes() as count:
        built.sampler.images(built.denoiser, **draw)
    assert max(working(plan).values()) == pytest.approx(
        max(live for _, live in count.history), rel=0.1
    )


def test_a_request_beyond_memory_is_refused_before_weights_are_read(folder, tmp_path, monkeypatch):
    overrides = [
        "model=flux1_dev",
        f"model.weights='{folder}'",
        "prompt=night",
        f"output='{tmp_path / 'drawn'}'",
        *TINY,
    ]
    overrides += ["height=64", "width=64"]
    monkeypatch.setattr(peak_memory, "available_bytes", lambda device: 1000)
    with monkeypatch.context() as patch:
        patch.setattr(load_release, "fill", None)
        with pytest.raises(MemoryPlanError, match=r"(?s)'decode' needs .* denoiser .*plan=skip"):
            run("generate", tmp_path, *overrides)
    run("generate", tmp_path, *overrides, "plan=skip")
    assert (tmp_path / "drawn" / "image_0000.png").is_file()


@pytest.mark.parametrize(
    ("words", "share", "cure"),
    [
        (["model=sd35_medium"], 0.99, "height="),
        (["model=sd35_medium"], 0.5, "a smaller model"),
        (["model=sd35_medium", "text.sequential=false"], 0.5, "text.sequential=true"),
        (["model=flux2_klein_4b"], 0.5, "a smaller model"),
    ],
)
def test_the_suggested_cure_makes_the_request_fit(words, share, cure, tmp_path):
    many = ("n=64", "guidance.scale=1.0") if share > 0.9 else ()
    plan = planned(tmp_path, *words, *many)
    with pytest.raises(MemoryPlanError) as caught:
        plan.require(int(share * plan.memory.worst(plan.host).total))
    assert cure in caught.value.cure
    plan.require(plan.memory.worst(plan.host).total)


@pytest.mark.parametrize("fits", [1, 3, 8])
def test_the_batch_size_is_the_largest_that_fits(folder, tmp_path, monkeypatch, capsys, fits):
    overrides = [
        "model=flux1_dev",
        f"model.weights='{folder}'",
        "prompt=night",
        "n=8",
        "height=96",
        "width=96",
        *TINY,
    ]
    config = settings("generate", tmp_path, *overrides)
    exactly = inference_memory.plan(config, fits)
    monkeypatch.setattr(
        peak_memory, "available_bytes", lambda device: exactly.memory.worst(exactly.host).total
    )
    built = pipeline(config)
    assert built.sampler.max_batch == fits
    assert (f"{fits} of 8 images are drawn at once" in capsys.readouterr().out) == (fits < 8)
    with pytest.raises(MemoryPlanError, match="batch_size=1"):
        pipeline(config.replace(n=16, batch_size=16))
    assert pipeline(config.replace(batch_size=1)).sampler.max_batch == 1


@pytest.mark.parametrize("batch_size", ["0", "-3", "many", "1.5", "true"])
def test_an_invalid_batch_size_is_refused(folder, tmp_path, batch_size):
    for overrides in (
        ("model=flux1_dev", f"model.weights='{folder}'", *TINY),
        (f"checkpoint='{tmp_path}'",),
    ):
        with pytest.raises(ConfigError, match=r"batch_size (is|must be)"):
            run("generate", tmp_path, *overrides, "prompt=night", f"batch_size={batch_size}")


def test_without_a_gpu_planning_works_and_sampling_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    overrides = ("model=sdxl", "hardware=gpu_12gb")
    assert not planned(tmp_path, *overrides).host
    with pytest.raises(ConfigError, match="no usable GPU"):
        run("generate", tmp_path, *overrides, "model.random_weights=true", "prompt=night")


@pytest.mark.parametrize("size", ["height=104", "height=3", "width=100"])
@pytest.mark.parametrize("plan", ["only", "check", "skip"])
def test_a_size_that_does_not_divide_into_tokens_is_refused(folder, size, plan, tmp_path):
    overrides = (
        "model=flux1_dev",
        f"model.weights='{folder}'",
        "prompt=night",
        f"plan={plan}",
        *TINY,
    )
    with pytest.raises(ConfigError, match="cannot be cut into cells of 16") as caught:
        run("generate", tmp_path, *overrides, size)
    assert caught.value.where == size.split("=")[0]


@pytest.mark.parametrize("words", [["model=flux1_dev", "plan=maybe"], ["plan=only"]])
def test_an_invalid_plan_value_is_refused(words, tmp_path):
    with pytest.raises(ConfigError, match="plan"):
        run("generate", tmp_path, *words)
