"""Runs of method=few_step_lora: the base teaches an adapter, which is kept, drawn and exported."""

import pytest
import torch

from tests.app.runs import SMALLEST, run, settings
from tests.methods.test_few_step_runs import FEW, MOVING
from tests.methods.test_lora_runs import PROMPT, QUIET, step
from tinyflux_pl.app.adapters import main
from tinyflux_pl.app.components import Parts
from tinyflux_pl.app.drawing.build_pipeline import pipeline
from tinyflux_pl.app.memory.training_memory import choose_division
from tinyflux_pl.core import files
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.types import Batch
from tinyflux_pl.diffusion.guidance import Guidance
from tinyflux_pl.methods import peft_layers
from tinyflux_pl.methods.layer_plan import LayerPlan
from tinyflux_pl.sampling.loop import SamplerSettings, sample

FEW_LORA = (*FEW, "method=few_step_lora", "method.rank=4")  # of two method= the later counts
AS_LEARNT = ("sampler.steps=4", "sampler.solver=euler", "guidance.scale=1.0")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A base of four steps, and an adapter of four steps on it."""
    project = tmp_path_factory.mktemp("project")
    run("train", project, *SMALLEST, *QUIET, *MOVING, "run=base", "steps=4")
    run("train", project, *FEW_LORA, f"init='{project}/outputs/base'", "run=few", "steps=4")
    return project


def drawn(root, *words):
    overrides = (*words, f"prompt='{PROMPT}'", "hardware.precision=32-true")
    built = pipeline(settings("generate", root, *overrides))
    return built, built.sampler.images(built.denoiser, [PROMPT], seed=3)


def prepared(root, *words):
    """Method, network with random weights, its objective, and a batch."""
    parts = Parts.from_config(settings("train", root, *FEW_LORA, *words))

    def start(network):
        torch.manual_seed(0)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.2)

    network = parts.student(start)
    text, ids = parts.text.encode(["a red circle", "a blue square"]), torch.arange(2) + 7
    batch = Batch(torch.zeros(2, 12, 16, 16), text, ids, ids, ["a", "b"])
    return network, parts.student_objective(parts.text.null()), batch


def test_the_base_teaches_at_every_state_of_the_adapter(tmp_path):
    """The target is where the guided base arrives; the student's own graph keeps its gradients."""
    words = ("method.steps=1", "sampler.steps=6", "guidance.scale=2.5", "method.dropout=0.5")
    network, objective, batch = prepared(tmp_path, *words, "sampler.solver=euler")
    ids = batch.sample_ids.tolist()
    options = {"shape": (12, 16, 16), "sample_ids": ids, "seed": objective.seed}
    options["stream"] = "few_step/5"
    guided = SamplerSettings(steps=6, solver="euler", guidance=Guidance(scale=2.5))
    network.eval()
    taught = sample(network, batch.text, objective.null_text, settings=guided, **options)
    adapter = [parameter for parameter in network.parameters() if parameter.requires_grad]
    assert adapter
    for parameter in adapter:
        torch.nn.init.normal_(parameter, std=0.2)
    single = SamplerSettings(steps=1, solver="euler", guidance=Guidance(scale=1.0))
    arrived = sample(network, batch.text, settings=single, **options)
    expected = (arrived - taught).square().mean()  # the step is one unit of time long
    error = objective.loss(network, batch, 5)["few_step"]
    torch.testing.assert_close(error, expected)
    network.train()
    dropped = objective.loss(network, batch, 5)["few_step"]  # of the adapter's input alone
    assert network.training and not torch.equal(dropped, error)
    dropped.backward()
    assert all(parameter.grad is not None for parameter in adapter)
    frozen = set(network.parameters()) - set(adapter)
    assert not any(parameter.requires_grad for parameter in frozen)


def test_a_network_that_is_switched_off_answers_as_in_drawing_and_trains_on_afterwards():
    network = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.5))
    x = torch.randn(16, 4)
    base = network[0](x)
    peft_layers.attach(network, {"0": LayerPlan(2, 2.0)}, peft_layers.Kind(init="gaussian"))
    torch.nn.init.normal_(network[0].lora_B["default"].weight)
    network[0].base_layer.eval()
    with peft_layers.switched_off(network):
        assert torch.equal(network(x), base)
    assert network.training and network[1].training and not network[0].base_layer.training
    assert not torch.equal(network[0](x), base)


def test_a_checkpoint_holds_the_adapter_and_draws_in_its_few_steps(root, capsys):
    checkpoint = step(root, "few", 4)
    assert all(".lora_" in name for name in checkpoint.weights("raw"))
    assert checkpoint.config["base"]["hash"] == step(root, "base", 4).hash
    built, picture = drawn(root, f"checkpoint='{root}/outputs/few'")
    chosen = built.sampler.settings
    assert (chosen.steps, chosen.solver, chosen.guidance.scale) == (4, "euler", 1.0)
    assert picture.isfinite().all() and "distilled" not in capsys.readouterr().out
    base = drawn(root, f"checkpoint='{root}/outputs/base'", *AS_LEARNT)[1]
    assert not torch.equal(picture, base)


def test_a_resumed_run_ends_with_the_same_bits_and_keeps_its_teacher(root):
    again = (*FEW_LORA, f"init='{root}/outputs/base'", "run=again")
    run("train", root, *again, "steps=2")
    run("train", root, *again, "steps=4", "resume=auto")
    for which in ("raw", "averaged"):
        one, other = step(root, "few", 4).weights(which), step(root, "again", 4).weights(which)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)
    with pytest.raises(ConfigError, match=r"another run.*guidance\.scale"):
        run("train", root, *again, "steps=5", "guidance.scale=2.0", "resume=auto")


def test_an_adapter_on_another_network_keeps_the_requested_sampler_and_names_the_learnt_one(
    root, capsys
):
    expected = drawn(root, f"checkpoint='{root}/outputs/few'")[1]
    words = (f"checkpoint='{root}/outputs/base'", f"lora='{root}/outputs/few'")
    built, _ = drawn(root, *words, "sampler.steps=2")
    assert built.sampler.settings.steps == 2
    out = " ".join(capsys.readouterr().out.split())
    assert "sampler.steps=2 instead of 4" in out and "guidance.scale=3.0 instead of 1.0" in out
    torch.testing.assert_close(drawn(root, *words, *AS_LEARNT)[1], expected)
    assert "distilled for" not in capsys.readouterr().out


@pytest.mark.parametrize("layout", ["peft", "diffusers", "kohya"])
def test_an_export_draws_the_same_and_prints_the_steps(root, tmp_path, layout, capsys):
    folder = tmp_path / layout
    assert main(["export", f"{root}/outputs/few", str(folder), "--layout", layout]) == 0
    assert "in 4 steps of Euler without guidance" in capsys.readouterr().out
    expected = drawn(root, f"checkpoint='{root}/outputs/few'")[1]
    file = next(folder.glob("*.safetensors"))
    words = (f"checkpoint='{root}/outputs/base'", f"lora='{file}'")
    torch.testing.assert_close(drawn(root, *words, *AS_LEARNT)[1], expected)


def test_a_merged_network_keeps_its_few_steps_and_its_base_is_left_where_it_is(
    root, tmp_path, capsys
):
    merged = tmp_path / "merged"
    assert main(["merge", f"{root}/outputs/few", str(merged)]) == 0
    expected = drawn(root, f"checkpoint='{root}/outputs/few'")[1]
    built, picture = drawn(root, f"checkpoint='{merged}'")
    torch.testing.assert_close(picture, expected, atol=1e-5, rtol=1e-5)
    assert built.distilled is not None and built.distilled.steps == 4
    assert main(["unmerge", str(merged), str(tmp_path / "base")]) == 2
    assert "drawn with another sampler" in capsys.readouterr().err


def test_the_plan_counts_one_set_of_base_weights(tmp_path):
    words = ("hardware=gpu_12gb", "hardware.batch_size=1", "hardware.drawn_at_once=1")
    words += ("method.steps=1", "sampler.steps=1", "method.base_precision=null")
    config = settings("train", tmp_path, *FEW_LORA, *words)
    rows = choose_division(config)[1].memory.worst().rows
    with torch.device("meta"):
        network = Parts.built_from(config).student()
    assert "teacher" not in rows
    assert rows["weights"] == sum(parameter.nbytes for parameter in network.parameters())


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ((), "begins from trained weights"),
        (("method.steps=0",), r"method\.steps"),
        (("method.targets=[nothing]",), r"method\.targets"),
        (("experts=lune",), "not what experts cached"),
        (("timesteps=uniform",), "does not read timesteps"),
    ],
)
def test_wrong_choices_are_refused_before_anything_is_trained(root, tmp_path, words, reason):
    start = (f"init='{root}/outputs/base'",) if words else ()
    with pytest.raises(ConfigError, match=reason):
        run("train", tmp_path, *FEW_LORA, *words, *start, "run=none")
    assert not (tmp_path / "outputs" / "none").exists()


def test_results_count_the_adapter_alone_as_trained(root):
    results = files.read_json(root / "outputs" / "few" / "results.json")
    count = sum(value.numel() for value in step(root, "few", 4).weights("raw").values())
    assert results["trained_parameters"] == count < results["parameters"]
