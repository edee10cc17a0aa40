"""Memory plan of sampling from a checkpoint: weights, activations and decoding, without weights."""

import numpy as np
import pytest

from tests.app.runs import SMALLEST, run, settings
from tinyflux_pl.app.drawing.build_pipeline import pipeline
from tinyflux_pl.app.memory import inference_memory
from tinyflux_pl.checkpoints.directory import Checkpoint
from tinyflux_pl.core.errors import ConfigError, MemoryPlanError
from tinyflux_pl.engine import peak_memory
from tinyflux_pl.engine.live_bytes import LiveBytes

QUICK = (
    "callbacks.validation.every_steps=0",
    "callbacks.preview.count=1",
    "data.evaluation_prompts=0",
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("project")
    run("train", root, *SMALLEST, *QUICK, "sampler.steps=1", "steps=1", "run=x")
    return root / "outputs" / "x"


def request(trained, *overrides):
    return settings(
        "generate",
        trained,
        f"checkpoint='{trained}'",
        "sampler.steps=2",
        "hardware=cpu",
        *overrides,
    )


def working(plan):
    return {stage.name: stage.rows.get("activations", 0) for stage in plan.memory.stages}


def test_planned_memory_grows_with_the_number_of_images(trained):
    one, four = (
        working(inference_memory.plan(request(trained, "prompt=night", f"n={n}"))) for n in (1, 4)
    )
    assert one["denoise"] > 0 and one["decode"] > 0
    assert (
        four["denoise"] == pytest.approx(4 * one["denoise"], rel=0.05)
        and four["decode"] >= 3.9 * one["decode"]
    )


def test_the_plan_uses_guidance_of_the_checkpoint_unless_overridden(trained):
    guided, unguided = (
        working(inference_memory.plan(request(trained, *more)))
        for more in ((), ("guidance.scale=1.0",))
    )
    assert guided["denoise"] == pytest.approx(2 * unguided["denoise"], rel=0.05)


def test_planned_memory_equals_live_bytes_of_sampling(trained):
    config = request(trained, "prompt=night", "n=4", "hardware.precision=32-true")
    built, plan = pipeline(config), inference_memory.plan(config)
    # which reads what is read at first use
    built.sampler.images(built.denoiser, ["night"] * 4, seed=1)
    with LiveBytes() as count:
        built.sampler.images(built.denoiser, ["night"] * 4, seed=1)
    assert max(working(plan).values()) == pytest.approx(
        max(live for _, live in count.history), rel=0.3
    )


def test_a_request_beyond_memory_is_refused_before_weights_are_read(trained, monkeypatch):
    config = request(trained, "prompt=night", "batch_size=1")
    plan = inference_memory.plan(config)
    monkeypatch.setattr(
        peak_memory, "available_bytes", lambda device: plan.memory.worst(True).total - 1
    )
    monkeypatch.setattr(Checkpoint, "weights", None)
    with pytest.raises(MemoryPlanError, match="needs") as caught:
        pipeline(config)
    assert "height=" in caught.value.cure


def test_the_batch_size_is_the_largest_that_fits(trained, monkeypatch, capsys):
    config = request(trained, "prompt=night", "n=8")
    three = inference_memory.plan(config.replace(n=3)).memory.worst(True).total
    monkeypatch.setattr(peak_memory, "available_bytes", lambda device: three)
    assert pipeline(config).sampler.max_batch == 3
    assert "3 of 8 images are drawn at once" in capsys.readouterr().out


def test_plan_only_prints_without_reading_weights(trained, monkeypatch, capsys):
    monkeypatch.setattr(Checkpoint, "weights", None)
    run("generate", trained, f"checkpoint='{trained}'", "plan=only")
    assert "activations" in capsys.readouterr().out


@pytest.mark.parametrize("plan", ["only", "check"])
def test_a_size_that_does_not_divide_into_tokens_is_refused(trained, plan):
    with pytest.raises(ConfigError, match="cannot be cut into cells"):
        run("generate", trained, f"checkpoint='{trained}'", "prompt=x", f"plan={plan}", "height=33")


def test_a_sequence_model_is_planned(tmp_path):
    sizes = ("model.hidden_size=32", "model.num_heads=2", "model.axes_dim=[4,6,6]", "model.depth=1")
    request = (
        "model=flux_core",
        "data=bar_charts",
        "data.count=64",
        *sizes,
        *QUICK,
        "steps=1",
        "run=y",
    )
    run("train", tmp_path, *request)
    common = (f"checkpoint='{tmp_path / 'outputs' / 'y'}'", "hardware=cpu")
    conditions = tmp_path / "conditions.npz"
    np.savez(conditions, condition=np.zeros((2, 6, 2), np.float32))
    config = settings("generate", tmp_path, *common, f"condition='{conditions}'")
    assert working(inference_memory.plan(config.replace(batch_size=2)))["denoise"] > 0
    assert pipeline(config).sampler.max_batch == 64
