"""Sequences through the real configuration: from a file of pairs to a checkpoint and samples."""

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
def trained_checkpoint(root):
    run("train", root, *chosen(root, "whole", "hardware.precision=32-true"))
    return root / "outputs" / "whole"


def test_a_network_with_guidance_input_trains_and_samples_at_the_requested_guidance(
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
    for conditions in ("null", "3.5", "9.0"):
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
            f"output={root / conditions}.safetensors",
            f"guidance.embedded={conditions}",
        )
        answers[conditions] = load_file(root / f"{conditions}.safetensors")["target"]
    assert torch.equal(answers["null"], answers["3.5"]) and not torch.equal(
        answers["3.5"], answers["9.0"]
    )


def test_a_run_writes_metrics_images_and_a_checkpoint(root, trained_checkpoint):
    results = json.loads((trained_checkpoint / "results.json").read_text())
    accuracies = results["accuracies"]
    assert set(accuracies) == {"sequences/held_out", "sequences/train"}
    assert set(accuracies["sequences/held_out"]) == {"all", "truth", "mean"}
    assert (
        accuracies["sequences/held_out"]["truth"] == 1.0
        and accuracies["sequences/held_out"]["mean"] < 1.0
    )
    assert results["prompt_accuracy_held_out"] == accuracies["sequences/held_out"]["all"]
    assert results["ask"] == "condition=FILE.npz" and results["validation_loss"] > 0
    assert sorted(p.name for p in (trained_checkpoint / "samples").glob("*.png")) == [
        "step_0000004.png",
        "step_0000008.png",
    ]


def test_the_codec_of_a_checkpoint_stores_the_moments_of_the_training_data(
    root, trained_checkpoint
):
    config = directory.read(trained_checkpoint / "checkpoints" / "step_0000008").config
    train = Sequences(root / "pairs.npz", "train", 0.2)
    pairs_of_train = train.pairs(range(len(train)))
    real = pairs_of_train.target[pairs_of_train.target_mask]
    assert config["codec"]["config"]["mean"] == pytest.approx(real.double().mean(0).tolist())
    assert (
        config["codec"]["config"]["ids"] is None and config["codec"]["config"]["tokens"] == LONGEST
    )
    assert config["path"]["config"] == {"noise_at": 1} and config["denoiser"]["name"] == "flux_core"


def test_a_resumed_run_ends_with_the_same_bits(root, trained_checkpoint):
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


def test_changed_pairs_make_the_cache_stale(root, trained_checkpoint):
    np.savez(root / "others.npz", **pairs(shift=1.0))
    with pytest.raises(StaleCache, match="the store was made from other inputs"):
        run("train", root, *chosen(root, "other"), f"data.root='{root / 'others.npz'}'")


def test_generated_targets_depend_only_on_condition_and_seed(root, trained_checkpoint):
    conditions = {k: v[:6] for k, v in pairs().items() if k != "target"}
    np.savez(root / "asked.npz", **conditions)
    np.savez(root / "last.npz", **{k: v[5:] for k, v in conditions.items()})
    common = (f"checkpoint='{trained_checkpoint}'", "seed=3")
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
    generated, last = load_file(root / "asked.safetensors"), load_file(root / "last.safetensors")
    assert (
        generated["target"].shape == (12, LONGEST, 2)
        and (generated["target"][~generated["target_mask"]] == 0).all()
    )
    assert torch.allclose(generated["target"][10], last["target"][0], atol=1e-4)
    assert not torch.allclose(generated["target"][10], generated["target"][11], atol=1e-2)
    assert torch.equal(
        generated["target_ids"][10][generated["target_mask"][10]],
        torch.tensor(conditions["target_ids"][5])[generated["target_mask"][10]],
    )
    assert generated["target"][generated["target_mask"]].mean() == pytest.approx(50.0, abs=2.0)
    again = Sequences(root / "asked.safetensors", "all", 0.0)
    assert len(again) == 12 and again.shape.tokens == LONGEST
    assert (
        len(
            SequencePipeline(Pipeline.from_checkpoint(trained_checkpoint)).read(
                root / "asked.safetensors"
            )
        )
        == 12
    )


def test_invalid_condition_files_are_refused(root, trained_checkpoint):
    conditions = {k: v[:6] for k, v in pairs().items() if k != "target"}
    refused = {
        "ids": (
            {k: v for k, v in conditions.items() if k != "target_ids"},
            DataError,
            "differ from pair to pair",
        ),
        "width": (
            {**conditions, "condition": conditions["condition"][..., :2]},
            SpecMismatch,
            "condition is 2 wide",
        ),
        "vector": (
            {**conditions, "vector": np.ones((6, 1))},
            DataError,
            "a vector, and in training there was none",
        ),
    }
    for name, (content, kind, message) in refused.items():
        np.savez(root / f"{name}.npz", **content)
        with pytest.raises(kind, match=message):
            run(
                "generate",
                root,
                f"checkpoint='{trained_checkpoint}'",
                f"condition='{root / f'{name}.npz'}'",
                f"run=no_{name}",
            )
    with pytest.raises(ConfigError, match="condition= alone"):
        file = root / "ids.npz"
        run(
            "generate",
            root,
            f"checkpoint='{trained_checkpoint}'",
            f"condition='{file}'",
            "prompt='a circle'",
            "run=both",
        )
    for more in ("height=32", "width=8", "reference=a.png", "negative_prompt=blurry"):
        refusal = f"condition= cannot be combined with {more.partition('=')[0]}"
        with pytest.raises(ConfigError, match=refusal):
            run(
                "generate",
                root,
                f"checkpoint='{trained_checkpoint}'",
                f"condition='{root / 'ids.npz'}'",
                more,
                "run=both",
            )
    with pytest.raises(ConfigError, match="condition=FILE"):
        run(
            "generate", root, f"checkpoint='{trained_checkpoint}'", "prompt='a circle'", "run=words"
        )


def test_an_existing_output_file_is_refused_before_sampling(root, trained_checkpoint, monkeypatch):
    np.savez(root / "more.npz", **{k: v[:2] for k, v in pairs().items() if k != "target"})
    (root / "kept.npz").write_bytes(b"mine")
    monkeypatch.setattr(SequencePipeline, "answers", None)
    where = (f"condition='{root / 'more.npz'}'", f"output='{root / 'kept.npz'}'", "run=kept")
    with pytest.raises(DataError, match="the file exists already"):
        run("generate", root, f"checkpoint='{trained_checkpoint}'", *where)
    assert (root / "kept.npz").read_bytes() == b"mine"


@pytest.mark.parametrize("data", ["digit_halves", "bar_charts"])
def test_the_documented_tasks_run_with_guidance(tmp_path, data):
    few = ["data.count=64"] if data == "bar_charts" else []
    run("train", tmp_path, "model=flux_core", f"data={data}", "guidance=cfg", "run=small", *few)
    results = json.loads((tmp_path / "outputs" / "small" / "results.json").read_text())
    assert set(results["accuracies"][f"{data}/held_out"]) >= {"all", "truth", "mean"}
    assert (tmp_path / "outputs" / "small" / "samples" / "step_0000008.png").is_file()


@pytest.mark.parametrize("model", ["tiny", "unet"])
def test_a_network_without_position_ids_is_refused(root, model):
    patch = ["model.patch_size=1"] if model == "tiny" else []
    with pytest.raises(SpecMismatch, match="reads no token positions"):
        run("train", root, *chosen(root, model)[1:], f"model={model}", *patch)
