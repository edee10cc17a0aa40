"""Runs of method=few_step through the real configuration: what is learnt, kept, drawn, refused."""

import pytest
import torch

from tests.app.runs import SMALLEST, run, settings
from tests.methods.test_lora_runs import PROMPT, QUIET, step
from tinyflux_pl.app import run as recipes
from tinyflux_pl.app.components import Parts
from tinyflux_pl.app.drawing.build_pipeline import pipeline
from tinyflux_pl.app.memory.training_memory import choose_division
from tinyflux_pl.core.errors import CheckpointMismatch, ConfigError
from tinyflux_pl.core.types import Batch, TextEmbeddings
from tinyflux_pl.diffusion.guidance import Guidance
from tinyflux_pl.methods.few_step import FewStep
from tinyflux_pl.sampling.loop import SamplerSettings, sample

MOVING = ("optimizer=adamw", "optimizer.lr=0.01", "schedule=constant", "schedule.warmup_steps=0")
FEW = (*SMALLEST, *QUIET, "method=few_step", *MOVING, "callbacks.checkpoint.keep=9")
FEW += ("sampler.steps=8",)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A base of four steps, and its distillation of four."""
    project = tmp_path_factory.mktemp("project")
    run("train", project, *SMALLEST, *QUIET, *MOVING, "run=base", "steps=4")
    run("train", project, *FEW, f"init='{project}/outputs/base'", "run=few", "steps=4")
    return project


def drawn(root, *overrides):
    words = (f"checkpoint='{root}/outputs/few'", f"prompt='{PROMPT}'", *overrides)
    built = pipeline(settings("generate", root, *words, "hardware.precision=32-true"))
    return built, built.sampler.images(built.denoiser, [PROMPT], seed=3)


def prepared(root, *overrides):
    """Network, its objective, and a batch with random captions."""
    parts = Parts.from_config(settings("train", root, *FEW, *overrides))
    network = parts.student()
    torch.manual_seed(0)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    parts.method.prepare(network)
    spec = parts.text.text_spec
    text = parts.text.encode(["a red circle", "a blue square", "a cyan ring"])
    assert isinstance(text, TextEmbeddings) and spec.width == text.tokens.shape[-1]
    latents = torch.zeros(3, 12, 16, 16)
    ids = torch.arange(3) + 7
    batch = Batch(latents, text, ids, ids, ["a", "b", "c"])
    return network, parts.student_objective(parts.text.null()), batch


def test_the_teacher_of_a_dry_run_is_freed_before_the_network_of_the_run(root, monkeypatch):
    kept = []

    def stopped(parts, *_):
        kept.append(parts.method.teacher)
        raise KeyboardInterrupt

    monkeypatch.setattr(recipes, "assemble", stopped)
    start = f"init='{root}/outputs/base'"
    with pytest.raises(KeyboardInterrupt):
        run("train", root, *FEW, start, "run=freed", "steps=1", "preflight=true")
    assert kept == [None]


def test_a_student_that_takes_the_steps_of_its_unguided_teacher_has_nothing_to_learn(tmp_path):
    network, objective, batch = prepared(tmp_path, "sampler.steps=4", "guidance.scale=1.0")
    assert objective.loss(network, batch, 0)["few_step"] < 1e-9
    network, objective, batch = prepared(tmp_path, "sampler.steps=4", "guidance.scale=3.0")
    assert objective.loss(network, batch, 0)["few_step"] > 1e-4


def test_the_target_is_where_the_guided_sampler_arrives(tmp_path):
    """With one step the teacher's end is the picture that the run's own sampler draws."""
    words = ("method.steps=1", "sampler.steps=6", "guidance.scale=2.5")
    network, objective, batch = prepared(tmp_path, *words)
    chosen = SamplerSettings(steps=6, solver="euler", guidance=Guidance(scale=2.5))
    stream, ids = "few_step/5", batch.sample_ids.tolist()
    options = {"shape": (12, 16, 16), "sample_ids": ids, "seed": objective.seed, "stream": stream}
    null = objective.null_text
    taught = sample(network, batch.text, null, settings=chosen, **options)
    single = SamplerSettings(steps=1, solver="euler", guidance=Guidance(scale=1.0))
    arrived = sample(network, batch.text, settings=single, **options)
    expected = (arrived - taught).square().mean()  # the step is one unit of time long
    torch.testing.assert_close(objective.loss(network, batch, 5)["few_step"], expected)


def test_a_sample_s_loss_does_not_depend_on_its_batch(tmp_path):
    network, objective, batch = prepared(tmp_path)
    all_of = objective.loss(network, batch, 2)["few_step"]
    rows = [torch.tensor([i]) for i in range(3)]
    alone = [
        objective.loss(
            network,
            Batch(batch.latents[i], batch.text.select(i), batch.sample_ids[i], i, ["x"]),
            2,
        )["few_step"]
        for i in rows
    ]
    torch.testing.assert_close(torch.stack(alone).mean(), all_of)


def test_a_distilled_checkpoint_draws_alone_in_its_steps_and_says_what_it_is(root, capsys):
    built, picture = drawn(root)
    chosen = built.sampler.settings
    assert (chosen.steps, chosen.solver, chosen.guidance.scale) == (4, "euler", 1.0)
    assert picture.isfinite().all() and "distilled" not in capsys.readouterr().out
    config = step(root, "few", 4).config
    assert "base" not in config and config["method"]["config"]["steps"] == 4
    assert config["teacher"]["hash"] == step(root, "base", 4).hash
    assert built.description()["teacher"]["hash"] == step(root, "base", 4).hash[:16]
    early, late = step(root, "base", 4).weights("averaged"), step(root, "few", 4).weights("raw")
    assert early.keys() == late.keys() and any(not torch.equal(early[k], late[k]) for k in late)


def test_other_settings_are_used_and_named(root, capsys):
    built, _ = drawn(root, "sampler.steps=2", "guidance.scale=3.0")
    assert built.sampler.settings.steps == 2
    out = " ".join(capsys.readouterr().out.split())
    assert "sampler.steps=2 instead of 4" in out and "guidance.scale=3.0 instead of 1.0" in out


def test_a_resumed_run_ends_with_the_same_bits_and_keeps_its_teacher(root):
    start = f"init='{root}/outputs/base'"
    again = (*FEW, start, "run=again")
    run("train", root, *again, "steps=2")
    run("train", root, *again, "steps=4", "resume=auto")
    for which in ("raw", "averaged"):
        one, other = step(root, "few", 4).weights(which), step(root, "again", 4).weights(which)
        assert all(torch.equal(one[key], other[key]) for key in one)
    with pytest.raises(ConfigError, match=r"another run.*guidance\.scale"):
        run("train", root, *again, "steps=4", "guidance.scale=2.0", "resume=auto")
    other = f"init='{root}/outputs/few'"
    with pytest.raises(CheckpointMismatch, match=r"and this is"):
        run("train", root, *FEW, other, "run=again", "steps=5", "resume=auto")


def test_a_student_keeps_the_experts_heads_of_its_teacher_without_the_experts(root):
    """A base that was taught by experts is drawn with its heads: they are part of the network."""
    words = ("experts=lune_sol", "run=taught", "steps=1", "callbacks.checkpoint.keep=9")
    run("train", root, *SMALLEST, *QUIET, *words)
    start = f"init='{root}/outputs/taught'"
    run("train", root, *FEW, start, "run=heads", "steps=1")
    one, other = step(root, "taught", 1), step(root, "heads", 1)
    assert other.config["experts"] == [] and one.shapes() == other.shapes()
    assert any("lune_predictor" in name for name in other.shapes())
    drawn(root, f"checkpoint='{root}/outputs/heads'")


def test_a_distilled_network_is_a_base_like_any_other(root):
    start = f"init='{root}/outputs/few'"
    run("train", root, *SMALLEST, *QUIET, start, "method=lora", "run=on_few", "steps=1")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ((), "begins from trained weights"),
        (("method.steps=0",), r"method\.steps"),
        (("method.on_policy=2.0",), r"method\.on_policy"),
        (("guidance.kind=cfg_zero", "guidance.zero_until=0.1"), "does not move at first"),
        (("sampler.start=sigma",), "clean data"),
    ],
)
def test_wrong_choices_are_refused_before_anything_is_trained(root, tmp_path, words, reason):
    start = (f"init='{root}/outputs/base'",) if words else ()
    with pytest.raises(ConfigError, match=reason):
        run("train", tmp_path, *FEW, *words, *start, "run=none")
    assert not (tmp_path / "outputs" / "none").exists()


def test_the_memory_plan_counts_the_teacher(tmp_path):
    words = ("hardware=gpu_12gb", "hardware.batch_size=4")
    _, plan = choose_division(settings("train", tmp_path, *FEW, *words))
    rows = plan.memory.worst().rows
    assert rows["teacher"] == rows["weights"]


def test_a_network_of_noise_predictions_is_refused():
    class Epsilon:
        name, prediction = "unet", "epsilon"

    with pytest.raises(ConfigError, match="predicts epsilon"):
        FewStep().prepare(Epsilon())
