"""Sequences through the real configuration: from a file of pairs to a checkpoint, and from it to
answers.
"""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.app.runs import run
from tests.app.sequence_files import LONGEST, pairs
from tinyflux_pl.checkpoints import directory
from tinyflux_pl.core.errors import ConfigError, DataError, SpecMismatch, StaleCache
from tinyflux_pl.data.sequences.files import Sequences
from tinyflux_pl.inference.pipeline import Pipeline
from tinyflux_pl.inference.sequences import SequencePipeline


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    np.savez(folder / "pairs.npz", **pairs())
    return folder


def chosen(root, name, *more):
    file = f"data.root='{root / 'pairs.npz'}'"
    return (
        "model=flux_core",
        "data=sequences",
        file,
        "data.validation_fraction=0.2",
        f"run={name}",
        *more,
    )


@pytest.fixture(scope="module")
def whole(root):
    run("train", root, *chosen(root, "whole", "hardware.precision=32-true"))
    return root / "outputs" / "whole"


def test_a_network_with_a_guidance_input_trains_and_is_drawn_from_at_the_guidance_that_is_asked_for(
    root,
):
    guided = (
        "model.guidance_embed=true",
        "model.training_guidance=3.5",
        "hardware.precision=32-true",
    )
    run("train", root, *chosen(root, "guided", *guided))
    trained = Pipeline.from_checkpoint(root / "outputs" / "guided")
    assert trained.denoiser.reads_guidance and trained.denoiser.training_guidance == 3.5
    answers = {}
    for asked in ("null", "3.5", "9.0"):
        line = (
            f"checkpoint={root / 'outputs' / 'guided'}",
            f"condition={root / 'pairs.npz'}",
            "n=1",
            "weights=raw",
        )
        run(
            "generate",
            root,
            *line,
            f"output={root / asked}.safetensors",
            f"guidance.embedded={asked}",
        )
        answers[asked] = load_file(root / f"{asked}.safetensors")["target"]
    assert torch.equal(answers["null"], answers["3.5"]) and not torch.equal(
        answers["3.5"], answers["9.0"]
    )


def test_a_run_leaves_measures_pictures_and_a_checkpoint(root, whole):
    results = json.loads((whole / "results.json").read_text())
    accuracies = results["accuracies"]
    assert set(accuracies) == {"sequences/held_out", "sequences/train"}
    assert set(accuracies["sequences/held_out"]) == {"all", "truth", "mean"}
    assert (
        accuracies["sequences/held_out"]["truth"] == 1.0
        and accuracies["sequences/held_out"]["mean"] < 1.0
    )
    assert results["prompt_accuracy_held_out"] == accuracies["sequences/held_out"]["all"]
    assert results["ask"] == "condition=FILE.npz" and results["validation_loss"] > 0
    assert sorted(p.name for p in (whole / "samples").glob("*.png")) == [
        "step_0000004.png",
        "step_0000008.png",
    ]


def test_the_checkpoint_s_codec_knows_the_training_data_s_moments(root, whole):
    config = directory.read(whole / "checkpoints" / "step_0000008").config
    train = Sequences(root / "pairs.npz", "train", 0.2)
    told = train.pairs(range(len(train)))
    real = told.target[told.target_mask]
    assert config["codec"]["config"]["mean"] == pytest.approx(real.double().mean(0).tolist())
    assert (
        config["codec"]["config"]["ids"] is None and config["codec"]["config"]["tokens"] == LONGEST
    )
    assert config["path"]["config"] == {"noise_at": 1} and config["denoiser"]["name"] == "flux_core"


def test_a_resumed_run_ends_with_the_same_bits(root, whole):
    run(
        "train",
        root,
        *chosen(root, "broken", "hardware.precision=32-true", "steps=4", "schedule.total_steps=8"),
    )
    run("train", root, *chosen(root, "broken", "hardware.precision=32-true", "resume=auto"))
    one, other = (
        directory.read(root / "outputs" / name / "checkpoints" / "step_0000008").weights("averaged")
        for name in ("whole", "broken")
    )
    assert all(torch.equal(one[k], other[k]) for k in one)


def test_other_pairs_are_told_from_the_cached_ones(root, whole):
    np.savez(root / "others.npz", **pairs(shift=1.0))
    with pytest.raises(StaleCache, match="the store was made from other inputs"):
        run("train", root, *chosen(root, "other"), f"data.root='{root / 'others.npz'}'")


def test_answers_are_whole_pairs_that_depend_on_condition_and_seed_alone(root, whole):
    asked = {k: v[:6] for k, v in pairs().items() if k != "target"}
    np.savez(root / "asked.npz", **asked)
    np.savez(root / "last.npz", **{k: v[5:] for k, v in asked.items()})
    common = (f"checkpoint='{whole}'", "seed=3")
    for name, n in (("asked", 2), ("last", 1)):
        out = f"output='{root / f'{name}.safetensors'}'"
        run(
            "generate",
            root,
            *common,
            f"condition='{root / f'{name}.npz'}'",
            out,
            f"n={n}",
            f"run=made_{name}",
        )
    made, last = load_file(root / "asked.safetensors"), load_file(root / "last.safetensors")
    assert (
        made["target"].shape == (12, LONGEST, 2)
        and (made["target"][~made["target_mask"]] == 0).all()
    )
    assert torch.allclose(made["target"][10], last["target"][0], atol=1e-4)
    assert not torch.allclose(made["target"][10], made["target"][11], atol=1e-2)
    assert torch.equal(
        made["target_ids"][10][made["target_mask"][10]],
        torch.tensor(asked["target_ids"][5])[made["target_mask"][10]],
    )
    assert made["target"][made["target_mask"]].mean() == pytest.approx(50.0, abs=2.0)
    again = Sequences(root / "asked.safetensors", "all", 0.0)
    assert len(again) == 12 and again.shape.tokens == LONGEST
    assert (
        len(SequencePipeline(Pipeline.from_checkpoint(whole)).read(root / "asked.safetensors"))
        == 12
    )


def test_questions_that_the_model_cannot_take_are_refused(root, whole):
    asked = {k: v[:6] for k, v in pairs().items() if k != "target"}
    refused = {
        "ids": (
            {k: v for k, v in asked.items() if k != "target_ids"},
            DataError,
            "differ from pair to pair",
        ),
        "width": (
            {**asked, "condition": asked["condition"][..., :2]},
            SpecMismatch,
            "condition is 2 wide",
        ),
        "vector": (
            {**asked, "vector": np.ones((6, 1))},
            DataError,
            "a vector, and in training there was none",
        ),
    }
    for name, (content, kind, said) in refused.items():
        np.savez(root / f"{name}.npz", **content)
        with pytest.raises(kind, match=said):
            run(
                "generate",
                root,
                f"checkpoint='{whole}'",
                f"condition='{root / f'{name}.npz'}'",
                f"run=no_{name}",
            )
    with pytest.raises(ConfigError, match="condition= alone"):
        file = root / "ids.npz"
        run(
            "generate",
            root,
            f"checkpoint='{whole}'",
            f"condition='{file}'",
            "prompt='a circle'",
            "run=both",
        )
    for more in ("height=32", "width=8", "reference=a.png", "negative_prompt=blurry"):
        with pytest.raises(ConfigError, match=f"condition= goes without {more.partition('=')[0]}"):
            run(
                "generate",
                root,
                f"checkpoint='{whole}'",
                f"condition='{root / 'ids.npz'}'",
                more,
                "run=both",
            )
    with pytest.raises(ConfigError, match="condition=FILE"):
        run("generate", root, f"checkpoint='{whole}'", "prompt='a circle'", "run=words")


def test_a_file_that_is_there_is_kept_and_told_before_anything_is_drawn(root, whole, monkeypatch):
    np.savez(root / "more.npz", **{k: v[:2] for k, v in pairs().items() if k != "target"})
    (root / "kept.npz").write_bytes(b"mine")
    monkeypatch.setattr(SequencePipeline, "answers", None)
    where = (f"condition='{root / 'more.npz'}'", f"output='{root / 'kept.npz'}'", "run=kept")
    with pytest.raises(DataError, match="such a file already"):
        run("generate", root, f"checkpoint='{whole}'", *where)
    assert (root / "kept.npz").read_bytes() == b"mine"


@pytest.mark.parametrize("data", ["digit_halves", "bar_charts"])
def test_the_worked_tasks_run_guided(tmp_path, data):
    few = ["data.count=64"] if data == "bar_charts" else []
    run("train", tmp_path, "model=flux_core", f"data={data}", "guidance=cfg", "run=small", *few)
    results = json.loads((tmp_path / "outputs" / "small" / "results.json").read_text())
    assert set(results["accuracies"][f"{data}/held_out"]) >= {"all", "truth", "mean"}
    assert (tmp_path / "outputs" / "small" / "samples" / "step_0000008.png").is_file()


def test_the_same_network_learns_pictures_from_words(tmp_path):
    run("train", tmp_path, "model=flux_core", "run=words")
    results = json.loads((tmp_path / "outputs" / "words" / "results.json").read_text())
    assert 0 <= results["prompt_accuracy"] <= 1 and results["ask"] is None


@pytest.mark.parametrize("model", ["tiny", "unet"])
def test_a_network_that_reads_no_places_is_refused(root, model):
    patch = ["model.patch_size=1"] if model == "tiny" else []
    with pytest.raises(SpecMismatch, match="reads no token positions"):
        run("train", root, *chosen(root, model)[1:], f"model={model}", *patch)


def test_experts_have_no_place_in_it(tmp_path):
    with pytest.raises(ConfigError, match="lune_dim"):
        run("train", tmp_path, "model=flux_core", "experts=lune", "run=none")
