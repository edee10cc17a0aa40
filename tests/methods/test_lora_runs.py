"""Runs of method=lora through the real configuration: what trains, what is kept, what is drawn."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from tests.app.runs import SMALLEST, run, settings
from tinyflux_pl.app.drawing.build_pipeline import pipeline
from tinyflux_pl.app.fitting.starting_point import require_same_base
from tinyflux_pl.checkpoints import directory
from tinyflux_pl.core import files
from tinyflux_pl.core.errors import CheckpointMismatch, ConfigError
from tinyflux_pl.inference.pipeline import Pipeline

PROMPT = "a large red circle, top left"
QUIET = ("callbacks.preview.count=1", "data.evaluation_prompts=0", "sampler.steps=2")
LORA = (*SMALLEST, *QUIET, "method=lora", "method.rank=4", "callbacks.checkpoint.keep=9")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A base of four steps, and an adapter of eight steps on it."""
    folder = tmp_path_factory.mktemp("project")
    run("train", folder, *SMALLEST, *QUIET, "run=base", "steps=4")
    run("train", folder, *LORA, f"init='{folder}/outputs/base'", "run=adapter")
    return folder


def step(root, name, number=8):
    return directory.read(root / "outputs" / name / "checkpoints" / f"step_{number:07d}")


def drawn(root, name, *overrides):
    words = (f"checkpoint='{root}/outputs/{name}'", f"prompt='{PROMPT}'", *overrides)
    built = pipeline(settings("generate", root, *words, "hardware.precision=32-true"))
    return built, built.sampler.images(built.denoiser, [PROMPT], seed=3)


def test_a_checkpoint_holds_only_the_adapter_and_names_its_base(root):
    checkpoint, base = step(root, "adapter"), step(root, "base", 4)
    for which in ("raw", "averaged"):
        assert all(".lora_" in name for name in checkpoint.weights(which))
    assert checkpoint.config["base"]["hash"] == base.hash
    assert checkpoint.config["base"]["place"] == str(base.path)
    assert checkpoint.config["method"]["config"]["rank"] == 4


def test_every_adapter_weight_changes_and_no_base_weight_does(root):
    early, late = step(root, "adapter", 4).weights("raw"), step(root, "adapter").weights("raw")
    assert early.keys() == late.keys() and all(not torch.equal(early[k], late[k]) for k in late)
    merged, base = drawn(root, "adapter")[0].denoiser.state_dict(), step(root, "base", 4).weights()
    for name, value in base.items():
        stem, _, leaf = name.rpartition(".")
        assert torch.equal(merged.get(name, merged.get(f"{stem}.base_layer.{leaf}")), value)


def test_a_resumed_run_ends_with_the_same_bits(root):
    start = f"init='{root}/outputs/base'"
    run("train", root, *LORA, start, "run=broken", "steps=4", "schedule.total_steps=8")
    run("train", root, *LORA, start, "run=broken", "resume=auto")
    for which in ("raw", "averaged"):
        one, other = step(root, "adapter").weights(which), step(root, "broken").weights(which)
        assert all(torch.equal(one[k], other[k]) for k in one)


def test_sampling_loads_base_and_adapter_and_records_both(root):
    with_adapter, picture = drawn(root, "adapter")
    base, before = drawn(root, "base")
    assert not torch.equal(picture, before) and torch.equal(picture, drawn(root, "adapter")[1])
    described = with_adapter.description()["base"]
    assert described["hash"] == base.origin["checkpoint"] and described["method"] == "lora"
    assert str(root) not in json.dumps(described)


def test_a_moved_base_is_located_by_name_and_a_changed_one_refused(root, tmp_path):
    read, folder = step(root, "adapter"), tmp_path / "moved"
    shutil.copytree(step(root, "base", 4).path, folder)
    gone = {**read.config["base"], "place": str(tmp_path / "gone")}
    checkpoint = replace(read, config={**read.config, "base": gone})
    with pytest.raises(CheckpointMismatch, match=r"cannot be read.*(?s:.)*base=FOLDER"):
        Pipeline.from_checkpoint(checkpoint)
    Pipeline.from_checkpoint(checkpoint, base=str(folder))
    base = directory.read(folder)
    shifted = {name: value + 1 for name, value in base.weights("raw").items()}
    directory.save(
        folder, step=4, config=base.config, weights=shifted, averaged=None, state=base.state()
    )
    with pytest.raises(CheckpointMismatch, match=r"belongs to.*and this is"):
        Pipeline.from_checkpoint(checkpoint, base=str(folder))


def test_a_run_whose_base_changed_is_not_resumed(root):
    checkpoint = step(root, "adapter")
    require_same_base(checkpoint, {"base": checkpoint.config["base"]})
    with pytest.raises(CheckpointMismatch, match=r"belongs to.*and this is"):
        require_same_base(checkpoint, {"base": {**checkpoint.config["base"], "hash": "other"}})


def test_an_adapter_without_a_base_is_refused_before_creating_files(tmp_path):
    with pytest.raises(ConfigError, match="begins from trained weights"):
        run("train", tmp_path, *LORA, "run=none")
    assert not (tmp_path / "outputs" / "none").exists()


def test_an_adapter_is_refused_as_the_base_of_another(root):
    with pytest.raises(CheckpointMismatch, match="holds an adapter of"):
        run("train", root, *LORA, f"init='{root}/outputs/adapter'", "run=second")


def test_results_count_trained_and_all_parameters(root):
    results = files.read_json(root / "outputs" / "adapter" / "results.json")
    count = sum(value.numel() for value in step(root, "adapter").weights("raw").values())
    assert results["trained_parameters"] == count < results["parameters"]
