"""Merging, unmerging and exporting by command, and starting a run from weights."""

import json
from dataclasses import replace

import pytest
import torch

from tests.app.runs import SMALLEST, run, settings
from tests.denoisers.test_conformance import SMALL, example
from tests.methods.test_lora_runs import LORA, PROMPT, QUIET, step
from tinyflux_pl.app.adapters import main
from tinyflux_pl.app.drawing.build_pipeline import pipeline
from tinyflux_pl.checkpoints import directory
from tinyflux_pl.checkpoints.start import start_from
from tinyflux_pl.core.errors import CheckpointMismatch

WIDE = ("model.num_attention_heads=2", "model.hidden_size=32")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    project = tmp_path_factory.mktemp("project")
    run("train", project, *SMALLEST, *QUIET, "run=base", "steps=2", "optimizer=adamw")
    words = (*LORA, f"init='{project}/outputs/base'", "optimizer.lr=0.05", "schedule=constant")
    run("train", project, *words, "run=adapter", "steps=2", "schedule.warmup_steps=0")
    return project


def picture(root, *words):
    overrides = (*words, f"prompt='{PROMPT}'", "hardware.precision=32-true")
    built = pipeline(settings("generate", root, *overrides))
    return built, built.sampler.images(built.denoiser, [PROMPT], seed=3)


def test_merging_equals_base_with_adapter_and_unmerging_restores_the_base(root, tmp_path, capsys):
    merged, base = tmp_path / "merged", tmp_path / "base"
    assert main(["merge", f"{root}/outputs/adapter", str(merged)]) == 0
    _, base_with_adapter = picture(root, f"checkpoint='{root}/outputs/adapter'")
    _, inside = picture(root, f"checkpoint='{merged}'")
    torch.testing.assert_close(inside, base_with_adapter, atol=1e-5, rtol=1e-5)
    assert main(["unmerge", str(merged), str(base)]) == 0
    restored, expected = directory.read(base).weights(), step(root, "base", 2).weights()
    assert all(torch.equal(restored[key], expected[key]) for key in expected)
    assert main(["merge", f"{root}/outputs/base", str(tmp_path / "none")]) == 2
    assert "a whole network and no adapter" in capsys.readouterr().err


@pytest.mark.parametrize("layout", ["peft", "diffusers", "kohya"])
def test_an_exported_adapter_on_its_base_reproduces_the_run_at_any_scale(root, tmp_path, layout):
    folder = tmp_path / layout
    assert main(["export", f"{root}/outputs/adapter", str(folder), "--layout", layout]) == 0
    file = next(folder.glob("*.safetensors"))
    _, expected = picture(root, f"checkpoint='{root}/outputs/adapter'")
    base = f"checkpoint='{root}/outputs/base'"
    built, drawn = picture(root, base, f"lora='{file}'")
    torch.testing.assert_close(drawn, expected, atol=1e-5, rtol=1e-5)
    description = built.description()["lora"]
    assert (
        description[0]["scale"] == 1.0
        and description[0]["layout"] == layout
        and len(description[0]["content"]) == 16
    )
    assert str(tmp_path) not in json.dumps(description)
    nothing, plain = picture(root, f"lora='{file}:0'", base)[1], picture(root, base)[1]
    assert torch.equal(nothing, plain)
    half = picture(root, base, f"lora=['{root}/outputs/adapter:0.5']")[1]
    assert not torch.equal(half, plain) and not torch.equal(half, expected)


@torch.no_grad()
def test_an_inpaint_network_initialised_from_its_base_gives_equal_outputs():
    base = SMALL["tinyflux"]().eval()
    fills = base.with_inpaint()
    for parameter in fills.parameters():
        parameter.add_(torch.randn_like(parameter))
    fills.net.inpaint_in.weight.zero_()  # as it is initialised
    report = start_from(fills, base.state_dict(), "base")
    assert report.new == ["net.inpaint_in.weight"] and not report.dropped and not report.widened
    x, t, cond = example(base)
    inpaint = torch.randn(len(x), fills.inpaint_channels, *x.shape[2:])
    assert torch.equal(fills(x, t, replace(cond, inpaint=inpaint)).sample, base(x, t, cond).sample)


@torch.no_grad()
def test_new_input_columns_are_zero_and_other_shape_changes_are_refused():
    wide, narrow = torch.nn.Linear(5, 2), torch.nn.Linear(3, 2)
    report = start_from(wide, narrow.state_dict(), "narrow")
    assert report.widened == ["weight"] and report.taken == ["bias"]
    x = torch.randn(4, 5)
    torch.testing.assert_close(wide(x), narrow(x[:, :3]))
    with pytest.raises(CheckpointMismatch, match="do not fit"):
        start_from(torch.nn.Linear(3, 4), narrow.state_dict(), "narrow")
    with pytest.raises(CheckpointMismatch, match="do not fit"):
        start_from(torch.nn.Linear(5, 2), narrow.state_dict(), "narrow", complete=True)


def test_a_run_initialised_from_weights_reports_new_parameters(root, capsys):
    init = f"init='{root}/outputs/base'"
    words = (*SMALLEST, *QUIET, init, "steps=1", "optimizer.lr=0", "optimizer=adamw")
    run("train", root, *words, "run=expert", "experts=sol")
    out = capsys.readouterr().out
    assert "new, as initialised" in out and "sol" in out
    started, base = step(root, "expert", 1).weights("raw"), step(root, "base", 2).weights()
    assert all(torch.equal(started[key], base[key]) for key in base)
    assert step(root, "expert", 1).config["init"]["hash"] == step(root, "base", 2).hash
    with pytest.raises(CheckpointMismatch, match="do not fit"):
        run(
            "train", root, *words, "run=wide", "model.num_attention_heads=2", "model.hidden_size=32"
        )
