"""Memory for drawing from a checkpoint: weights, activations and decoding, planned before a weight
is read.
"""

import pytest

from tests.app.runs import SMALLEST, run, settings
from tinyflux_pl.app import inference_memory
from tinyflux_pl.app.build_pipeline import pipeline
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


def asked(trained, *overrides):
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


def test_activations_and_decoding_grow_with_the_pictures(trained):
    one, four = (
        working(inference_memory.plan(asked(trained, "prompt=night", f"n={n}"))) for n in (1, 4)
    )
    assert one["denoise"] > 0 and one["decode"] > 0
    assert (
        four["denoise"] == pytest.approx(4 * one["denoise"], rel=0.05)
        and four["decode"] >= 3.9 * one["decode"]
    )


def test_the_checkpoints_own_guidance_counts_and_another_that_is_asked_for(trained):
    own, none = (
        working(inference_memory.plan(asked(trained, *more)))
        for more in ((), ("guidance.scale=1.0",))
    )
    assert own["denoise"] == pytest.approx(2 * none["denoise"], rel=0.05)


def test_the_plan_is_what_drawing_has_alive(trained):
    config = asked(trained, "prompt=night", "n=4", "hardware.precision=32-true")
    made, plan = pipeline(config), inference_memory.plan(config)
    # which reads what is read at first use
    made.sampler.images(made.denoiser, ["night"] * 4, seed=1)
    with LiveBytes() as count:
        made.sampler.images(made.denoiser, ["night"] * 4, seed=1)
    assert max(working(plan).values()) == pytest.approx(
        max(live for _, live in count.history), rel=0.3
    )


def test_what_cannot_fit_is_refused_before_a_weight_is_read(trained, monkeypatch):
    config = asked(trained, "prompt=night", "batch_size=1")
    plan = inference_memory.plan(config)
    monkeypatch.setattr(
        peak_memory, "available_bytes", lambda device: plan.memory.worst(True).total - 1
    )
    monkeypatch.setattr(Checkpoint, "weights", None)
    with pytest.raises(MemoryPlanError, match="needs") as caught:
        pipeline(config)
    assert "height=" in caught.value.cure


def test_as_many_are_drawn_at_once_as_fit(trained, monkeypatch, capsys):
    config = asked(trained, "prompt=night", "n=8")
    three = inference_memory.plan(config.replace(n=3)).memory.worst(True).total
    monkeypatch.setattr(peak_memory, "available_bytes", lambda device: three)
    assert pipeline(config).sampler.max_batch == 3
    assert "3 of 8 images are drawn at once" in capsys.readouterr().out


def test_the_plan_alone_is_printed_without_weights(trained, monkeypatch, capsys):
    monkeypatch.setattr(Checkpoint, "weights", None)
    run("generate", trained, f"checkpoint='{trained}'", "plan=only")
    assert "activations" in capsys.readouterr().out


@pytest.mark.parametrize("plan", ["only", "check"])
def test_a_size_that_cannot_be_cut_into_tokens_is_named(trained, plan):
    with pytest.raises(ConfigError, match="cannot be cut into cells"):
        run("generate", trained, f"checkpoint='{trained}'", "prompt=x", f"plan={plan}", "height=33")


def test_a_model_of_sequences_is_planned_too(tmp_path):
    sizes = ("model.hidden_size=32", "model.num_heads=2", "model.axes_dim=[4,6,6]", "model.depth=1")
    asked = (
        "model=flux_core",
        "data=bar_charts",
        "data.count=64",
        *sizes,
        *QUICK,
        "steps=1",
        "run=y",
    )
    run("train", tmp_path, *asked)
    place = (f"checkpoint='{tmp_path / 'outputs' / 'y'}'", "hardware=cpu")
    config = settings("generate", tmp_path, *place, "condition=nowhere.npz")
    assert working(inference_memory.plan(config.replace(batch_size=2)))["denoise"] > 0
    assert pipeline(config).sampler.max_batch == 64
