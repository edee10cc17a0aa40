"""The main job, small: what a run leaves behind, and that a resumed run is the same run."""

import json

import pytest
import torch

from tests.app.runs import run
from tinyflux_pl.checkpoints import directory
from tinyflux_pl.core.errors import ConfigError, StaleCache

PROMISED = {
    "prompt_accuracy",
    "prompt_accuracy_held_out",
    "validation_loss",
    "images_per_second",
    "seconds",
    "steps",
    "parameters",
    "checkpoint",
    "samples",
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("project")


@pytest.fixture(scope="module")
def trained(root):
    """Eight steps without a break, both experts."""
    return run("train", root, "experts=lune_sol", "run=whole", "hardware.precision=32-true")


def weights(root, name, step=8, which="raw"):
    return directory.read(root / "outputs" / name / "checkpoints" / f"step_{step:07d}").weights(
        which
    )


def test_a_run_writes_results_images_and_checkpoints(root, trained):
    folder = root / "outputs" / "whole"
    results = json.loads((folder / "results.json").read_text())
    assert results.keys() >= PROMISED
    assert 0 <= results["prompt_accuracy"] <= 1 and results["steps"] == 8
    assert results["validation_loss"] > 0
    assert {p.name for p in (folder / "checkpoints").iterdir()} == {"step_0000004", "step_0000008"}
    assert sorted(p.name for p in (folder / "samples").glob("*.png")) == [
        "step_0000004.png",
        "step_0000008.png",
    ]
    assert (folder / "csv" / "metrics.csv").read_text().count("\n") > 2


def test_expert_losses_are_trained_and_logged(root, trained):
    header = (
        (root / "outputs" / "whole" / "csv" / "metrics.csv").read_text().splitlines()[0].split(",")
    )
    assert {
        "train/flow",
        "train/lune",
        "train/sol",
        "train/gradient_norm",
        "validation/loss_t_0.5",
    } <= set(header)


def test_a_resumed_run_ends_with_the_same_bits(root, trained):
    chosen = ("experts=lune_sol", "hardware.precision=32-true", "run=broken")
    run("train", root, *chosen, "steps=4", "schedule.total_steps=8")
    run("train", root, *chosen, "resume=auto")
    for which in ("raw", "averaged"):
        one, other = weights(root, "whole", which=which), weights(root, "broken", which=which)
        assert all(torch.equal(one[k], other[k]) for k in one)


def test_raw_and_averaged_weights_differ_and_both_changed(root, trained):
    early, raw, averaged = (
        weights(root, "whole", 4),
        weights(root, "whole"),
        weights(root, "whole", 8, "averaged"),
    )
    key = next(k for k in raw if k.endswith("img_in.weight"))
    assert not torch.equal(raw[key], averaged[key]) and not torch.equal(raw[key], early[key])


def test_a_finished_run_is_never_overwritten(root, trained):
    with pytest.raises(ConfigError, match="already has checkpoints"):
        run("train", root, "experts=lune_sol", "run=whole")


def test_a_finished_run_that_is_resumed_is_only_evaluated_again(root, trained, capsys):
    folder = root / "outputs" / "whole"
    before, log = (
        json.loads((folder / "results.json").read_text()),
        (folder / "csv" / "metrics.csv").read_text(),
    )
    run("train", root, "experts=lune_sol", "run=whole", "hardware.precision=32-true", "resume=auto")
    assert "no step is left to train" in capsys.readouterr().out
    after = json.loads((folder / "results.json").read_text())
    times = {"seconds", "images_per_second", "peak_memory_bytes"}
    assert {k: v for k, v in after.items() if k not in times} == {
        k: v for k, v in before.items() if k not in times
    }
    assert (folder / "csv" / "metrics.csv").read_text() == log


def test_a_changed_key_that_makes_another_run_is_refused_by_name(root, trained, capsys):
    folder, overrides = (
        root / "outputs" / "whole",
        ("experts=lune_sol", "run=whole", "resume=auto", "steps=12"),
    )
    kept = sorted(path.name for path in folder.glob("config*.json"))
    changed = (
        "hardware.precision=32-true",
        "schedule.total_steps=8",
        "optimizer.lr=0.5",
        "hardware.workers=1",
    )
    with pytest.raises(ConfigError, match=r"optimizer\.lr changed") as error:
        run("train", root, *overrides, *changed)
    output = capsys.readouterr().out
    assert "resume_changed=true" in str(error.value) and "workers" not in str(error.value)
    assert (
        "optimizer.lr" in output
        and "another run" in output
        and "hardware.workers" in output
        and "nothing" in output
    )
    assert sorted(path.name for path in folder.glob("config*.json")) == kept


def test_steps_may_be_added_and_other_changes_need_permission(root, trained):
    chosen = (
        "experts=lune_sol",
        "run=longer",
        "hardware.precision=32-true",
        "schedule.total_steps=16",
    )
    run("train", root, *chosen, "steps=4")
    run("train", root, *chosen, "steps=6", "resume=auto")
    run(
        "train",
        root,
        *chosen,
        "steps=8",
        "resume=auto",
        "optimizer.weight_decay=0.5",
        "resume_changed=true",
    )
    folder = root / "outputs" / "longer"
    # A branch is compared with what was asked for when its checkpoint was made, not with what came
    # later.
    branch = ("run=branch_of_6", f"resume='{folder}/checkpoints/step_0000006'", "steps=6")
    run("train", root, *chosen, *branch)
    assert directory.read(folder / "checkpoints" / "step_0000008").step == 8
    assert len(list(folder.glob("config*.json"))) == 3
    with pytest.raises(ConfigError, match="2 steps past the end"):
        run("train", root, *chosen, "steps=6", "resume=auto")


def test_a_run_may_branch_from_another_checkpoint_with_one_history(root, trained, monkeypatch):
    from tinyflux_pl.app.fitting.training_run import TrainingRun

    earlier = root / "outputs" / "whole" / "checkpoints" / "step_0000004"
    chosen = ("experts=lune_sol", "hardware.precision=32-true")
    with pytest.raises(ConfigError, match="two histories"):
        run("train", root, *chosen, "run=whole", f"resume='{earlier}'")
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="on purpose"):
        patch.setattr(
            TrainingRun, "fit", lambda _: (_ for _ in ()).throw(RuntimeError("on purpose"))
        )
        run("train", root, *chosen, "run=branch", f"resume='{earlier}'")
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="on purpose"):
        patch.setattr(
            TrainingRun, "fit", lambda _: (_ for _ in ()).throw(RuntimeError("on purpose"))
        )
        run("train", root, *chosen, "run=branch", "resume=auto")
    # nothing was saved yet: from where it began
    run("train", root, *chosen, "run=branch", "resume=auto")
    for which in ("raw", "averaged"):
        one, other = weights(root, "whole", which=which), weights(root, "branch", which=which)
        assert all(torch.equal(one[k], other[k]) for k in one)
    with open(root / "outputs" / "branch" / "csv" / "metrics.csv") as log:
        # its preview and validation, then its own steps
        assert log.read().splitlines()[1].startswith("4,")


def test_a_cache_of_another_codec_is_refused(root, trained):
    with pytest.raises(StaleCache) as error:
        run("train", root, "codec.fold=4", "model.patch_size=1", "run=other")
    assert "fold" in str(error.value) and "extract.py" in str(error.value)


def test_a_checkpoint_samples_without_teachers_and_records_its_settings(root, trained):
    from PIL import Image

    checkpoint = root / "outputs" / "whole" / "checkpoints" / "step_0000008"
    for name in ("one", "two"):
        chosen = (
            f"checkpoint='{checkpoint}'",
            "prompt='a large red circle, top left'",
            "n=2",
            "seed=1",
        )
        run("generate", root, *chosen, f"run={name}")
    folder = root / "outputs" / "one"
    assert sorted(p.name for p in folder.glob("*.png")) == [
        "grid.png",
        "image_0000.png",
        "image_0001.png",
    ]
    metadata = json.loads(Image.open(folder / "image_0001.png").text["tinyflux_pl"])
    assert (
        metadata["prompt"] == "a large red circle, top left"
        and metadata["seed"] == 1
        and metadata["index"] == 1
    )
    assert (
        metadata["checkpoint"] == directory.read(checkpoint).hash
        and metadata["settings"]["steps"] == 2
    )
    again = root / "outputs" / "two"
    for name in ("image_0000.png", "image_0001.png"):
        assert (folder / name).read_bytes() == (again / name).read_bytes()
    assert (folder / "image_0000.png").read_bytes() != (folder / "image_0001.png").read_bytes()


def test_further_images_in_a_folder_are_numbered_after_existing_ones(root, trained, tmp_path):
    checkpoint = root / "outputs" / "whole" / "checkpoints" / "step_0000008"
    chosen = (f"checkpoint='{checkpoint}'", f"output='{tmp_path}'", "prompt='a large red circle'")
    run("generate", root, *chosen, "n=2", "seed=1")
    kept = {file.name: file.read_bytes() for file in tmp_path.glob("*.png")}
    run("generate", root, *chosen, "seed=2")
    assert {file.name for file in tmp_path.glob("*.png")} - set(kept) == {
        "image_0002.png",
        "grid_0002.png",
    }
    assert all((tmp_path / name).read_bytes() == content for name, content in kept.items())
