"""A frozen base in fewer bits: methods train on it, and draw on it and on the plain base."""

import pytest
import torch

from tests.app.runs import SMALLEST, run, settings
from tests.methods.test_lora_runs import PROMPT, QUIET, step
from tinyflux_pl.app.components import Parts
from tinyflux_pl.app.drawing.build_pipeline import pipeline
from tinyflux_pl.app.memory import training_memory
from tinyflux_pl.app.memory.planned_batch import planned_batch
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.engine.packed_linear import PackedLinear

WIDE = (*SMALLEST, "model.hidden_size=64", "model.attention_head_dim=64")  # a group of int4
WIDE += ("model.axes_dims_rope=[16,24,24]",)
FAST = (*QUIET, "schedule=constant", "schedule.warmup_steps=0", "callbacks.checkpoint.keep=9")
LORA = (*WIDE, *FAST, "method=lora", "method.rank=4", "optimizer.lr=0.01")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A base of one step, and an adapter of four steps on it in 4 bits."""
    folder = tmp_path_factory.mktemp("project")
    run("train", folder, *WIDE, *FAST, "run=base", "steps=1")
    start = f"init='{folder}/outputs/base'"
    run("train", folder, *LORA, start, "method.base_precision=int4", "run=int4", "steps=4")
    return folder


def packed_layers(network):
    return [name for name, layer in network.named_modules() if isinstance(layer, PackedLinear)]


@torch.no_grad()
def randomised(network, names=None):
    """Draw values for the parameters of these names, or for all."""
    for name, parameter in network.named_parameters():
        if names is None or name in names:
            torch.nn.init.normal_(parameter, std=0.1)


def drawn(root, *overrides):
    words = (f"checkpoint='{root}/outputs/int4'", f"prompt='{PROMPT}'", "sampler.steps=2")
    built = pipeline(settings("generate", root, *words, "hardware.precision=32-true", *overrides))
    return built, built.sampler.images(built.denoiser, [PROMPT], seed=3)


def test_a_checkpoint_on_a_packed_base_holds_the_adapter_and_says_the_format(root):
    checkpoint = step(root, "int4", 4)
    assert all(".lora_" in name for name in checkpoint.weights("raw"))
    assert checkpoint.config["base_precision"] == "int4"
    assert checkpoint.config["base"]["hash"] == step(root, "base", 1).hash


def test_a_resumed_run_on_a_packed_base_ends_with_the_same_bits(root):
    words = (*LORA, f"init='{root}/outputs/base'", "method.base_precision=int4", "run=again")
    run("train", root, *words, "steps=2")
    run("train", root, *words, "steps=4", "resume=auto")
    one, other = step(root, "int4", 4).weights("raw"), step(root, "again", 4).weights("raw")
    assert all(torch.equal(one[key], other[key]) for key in one)
    with pytest.raises(ConfigError, match="another run"):
        run("train", root, *words, "steps=5", "method.base_precision=int8", "resume=auto")


def test_an_adapter_is_drawn_on_the_plain_and_on_the_packed_base(root, capsys):
    plain, picture = drawn(root)
    assert not packed_layers(plain.denoiser)
    assert "engine.precision=int4" in " ".join(capsys.readouterr().out.split())
    stored, other = drawn(root, "engine.precision=int4")
    assert packed_layers(stored.denoiser) and not torch.equal(picture, other)
    assert (picture - other).abs().mean() < 0.2


def test_an_adapter_of_a_packed_base_is_drawn_on_calibrated_weights(root, tmp_path):
    file = tmp_path / "factors.safetensors"
    words = (f"checkpoint='{root}/outputs/int4'", f"prompt='{PROMPT}'", "sampler.steps=2")
    words += ("engine.precision=int4", f"engine.calibrate='{file}'")
    run("generate", tmp_path, *words)
    nearest = drawn(root, "engine.precision=int4")[1]
    stored, picture = drawn(root, "engine.precision=int4", f"engine.calibration='{file}'")
    layers = [stored.denoiser.get_submodule(name) for name in packed_layers(stored.denoiser)]
    assert any(layer.factors is not None for layer in layers)
    assert picture.isfinite().all() and not torch.equal(picture, nearest)


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("lora", ("method.rank=2",)),
        ("few_step_lora", ("method.rank=2", "sampler.steps=8")),
        ("controlnet", ("data.hint=canny",)),
        ("textual_inversion", ("method.word=large", "method.init_word=red")),
    ],
)
def test_every_method_with_a_frozen_base_takes_gradients_through_it(root, tmp_path, method, words):
    """On the packed base the gradient of what trains is near that on the plain one."""
    start = (f"init='{root}/outputs/base'", f"method={method}", *words)
    gradients = {}
    for name in ("null", "int8"):
        config = settings("train", tmp_path, *WIDE, *start, f"method.base_precision={name}")
        parts = Parts.from_config(config)
        torch.manual_seed(0)
        network = parts.student(start=randomised)  # else gates of zero let no gradient pass
        assert bool(packed_layers(network)) == (name == "int8")
        trained = {k: p for k, p in network.named_parameters() if p.requires_grad}
        randomised(network, trained)
        batch = planned_batch(parts, network, 2)
        batch.captions[:] = ["a large red circle", "a large blue ring"]
        terms = parts.student_objective(parts.text.null()).loss(network, batch, 0)
        torch.stack(list(terms.values())).sum().backward()
        grads = [p.grad.flatten() for p in trained.values() if p.grad is not None]
        gradients[name] = torch.cat(grads)
    assert gradients["int8"].norm() > 0
    assert torch.cosine_similarity(*gradients.values(), dim=0) > 0.99


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("method=full", "method.base_precision=int8"), "writes every weight"),
        (("method=few_step", "method.base_precision=int8"), "writes every weight"),
        (("method=lora", "method.base_precision=nf4"), "nf4 is not offered"),
        (("method=lora", "method.base_precision=int3"), "no format 'int3'"),
        (("method=lora", "method.base_precision=int8", "method.dora=true"), "DoRA"),
        (("method=lora", "method.base_precision=int8", "method.lokr=true"), "LoKr"),
    ],
)
def test_formats_without_effect_are_refused_before_anything_is_written(
    root, tmp_path, words, reason
):
    start = f"init='{root}/outputs/base'"
    with pytest.raises(ConfigError, match=reason) as caught:
        run("train", tmp_path, *WIDE, *QUIET, start, *words, "run=none")
    assert caught.value.where == "method.base_precision"
    assert list(tmp_path.iterdir()) == []


PLANNED = (
    *WIDE,
    "method=lora",
    "hardware=gpu_12gb",
    "hardware.precision=32-true",
    "hardware.batch_size=1",  # which is not divided further
    "hardware.gradient_checkpointing=true",
    "hardware.drawn_at_once=1",
)


def test_the_plan_takes_the_most_bits_that_fit(tmp_path):
    weights, totals = {}, {}
    for name in ("null", "int8", "int4"):
        config = settings("train", tmp_path, *PLANNED, f"method.base_precision={name}")
        plan = training_memory.choose_division(config)[1]
        weights[name] = plan.memory.stages[1].rows["weights"]
        totals[name] = plan.memory.worst().total
    # of fp32 four bytes, one, and a half with two bytes for 64; other layers stay as they are
    saved = {name: weights["null"] - count for name, count in weights.items()}
    assert saved["int4"] / saved["int8"] == pytest.approx((4 - 0.5 - 2 / 64) / 3, rel=0.02)
    memory = (totals["int8"] + 2**16) / 0.9 / 2**30
    assert totals["int8"] < totals["null"] - 2**17
    config = settings("train", tmp_path, *PLANNED, f"hardware.memory_gb={memory}")
    chosen, plan = training_memory.choose_division(config)
    assert chosen.method["base_precision"] == plan.base_precision == "int8"


def test_the_plan_places_text_encoders_in_turn(tmp_path):
    sums = {}
    for sequential in ("true", "false"):
        words = [word for word in PLANNED if not word.startswith("text.")]
        words += ["text=t5xxl_clip", f"text.sequential={sequential}"]
        config = settings("train", tmp_path, *words)
        stage = training_memory.choose_division(config)[1].memory.stages[0]
        assert stage.name == "encode"
        sums[sequential] = stage.rows["text encoders"]
    t5, clip = 4_762_310_656, 123_060_480  # parameters of the two encoders, in 2 bytes each
    assert sums == {"true": 2 * t5, "false": 2 * (t5 + clip)}


def test_a_release_is_planned_without_its_weights(tmp_path, capsys):
    words = ("model=flux1_dev", "model.structure.num_layers=1", "hardware.batch_size=1")
    words += ("model.structure.num_single_layers=1", "data=folder", "data.root=photos")
    run("train", tmp_path, *words, "method=lora", "hardware=gpu_24gb", "preflight=only")
    output = " ".join(capsys.readouterr().out.split())
    assert "accumulated" in output and "the plan fits" in output and "encode" in output
    assert list(tmp_path.iterdir()) == []
