"""`python train.py replay=BUNDLE`: the last failing step again, from the bundle alone."""

import json
import shutil

import pytest
import torch

from tests.app.runs import configuration
from tests.faults.attacks import Attack
from tests.faults.numbers import fitting
from tinyflux_pl.app import run as recipes
from tinyflux_pl.core.errors import CorruptCheckpoint, NumericsError

pytestmark = pytest.mark.filterwarnings("ignore")
STOPS = (
    "steps=20",
    "callbacks.guard.max_consecutive=2",
    "callbacks.log_every_steps=4",
    "experts=lune",
    "data.in_memory=true",
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("replay")


def stopped(fit):
    """The bundle of a run that had to stop."""
    with pytest.raises(NumericsError, match=r"python train\.py replay=") as error:
        fit.fit()
    (bundle,) = fit.run_dir.glob("replay_*")
    assert str(bundle) in str(error.value)
    return bundle


def replayed(root, bundle, capsys):
    """The exit code, and what was printed."""
    capsys.readouterr()
    code = recipes.train(configuration("train", root, f"replay='{bundle}'"))
    return code, capsys.readouterr().out


@pytest.fixture(scope="module")
def poisoned(root):
    """A run some of whose cached latents are not finite; and the ids of those samples."""
    fit = fitting(root, "poisoned", *STOPS)
    segments = fit.datamodule.train.datasets[0]._memory
    memory = {key: column for key, ((_, column),) in segments.items()}
    memory["latents"][::3, 0, 0, 0] = float("inf")
    return stopped(fit), set(memory["sample_ids"][::3].tolist())


def test_a_replay_reproduces_the_failure_and_names_samples_and_module(root, poisoned, capsys):
    bundle, bad = poisoned
    content = json.loads((bundle / "replay.json").read_text())["found"]
    code, printed = replayed(root, bundle, capsys)
    assert code == 1 and "reproduced: loss is" in printed and "NOT" not in printed
    assert (
        "the micro-batches are those that failed" in printed and "the weights are those" in printed
    )
    actual = [i for i in content["sample_ids"] if i in bad]
    assert actual and all(
        f"not finite in the batch: latents of sample {i}" in printed for i in actual
    )
    assert "first output that is not finite: net.img_in" in printed
    assert {"flow", "lune"} <= set(printed.split())
    by_sample = printed.split("loss by sample")[1].split("norm of the gradient")[0]
    rows = {
        int(line.split("│")[1]): line for line in by_sample.splitlines() if line.startswith("│")
    }
    assert rows.keys() == set(content["sample_ids"])
    assert all(("nan" in line or "inf" in line) == (sample in bad) for sample, line in rows.items())


def test_a_replay_needs_neither_the_cache_nor_the_run(root, poisoned, tmp_path, capsys):
    moved = tmp_path / "elsewhere" / "bundle"
    shutil.copytree(poisoned[0], moved)
    assert replayed(tmp_path, moved, capsys)[0] == 1
    assert not (tmp_path / "cache").exists()


def test_a_replay_of_an_older_failure_states_what_has_changed_since(root, capsys):
    fit = fitting(root, "older", *STOPS)
    # and step 3 is taken, before the log
    fit.trainer.callbacks.insert(0, Attack("loss", float("nan"), {0, 1, 2}))
    code, printed = replayed(root, stopped(fit), capsys)
    assert code == 0 and "step 2, " in printed
    assert "the micro-batches were read from the caches again" in printed
    assert "the weights are not those it failed with: later steps" in printed


def test_a_replay_names_nonfinite_weights(root, capsys):
    fit = fitting(root, "broken_weights", *STOPS)
    with torch.no_grad():
        fit.trainable.denoiser.net.txt_in.bias[0] = float("nan")
    code, printed = replayed(root, stopped(fit), capsys)
    assert code == 1 and "not finite in the network: net.txt_in.bias" in printed
    assert "first output that is not finite: net.txt_in" in printed


@pytest.mark.parametrize("technique", ["none", "contrastive", "layer_sync", "token_routing"])
def test_a_transient_failure_is_not_reproduced_and_the_loss_is_bit_equal(root, technique, capsys):
    """A gradient corrupted in transit: the replay is finite, and the loss is equal."""
    fit = fitting(root, f"transient_{technique}", *STOPS, f"technique={technique}")
    fit.trainer.callbacks.insert(
        0, Attack("gradient", float("nan"), set(range(2, 20)), micro_batch=1)
    )
    bundle = stopped(fit)
    content = json.loads((bundle / "replay.json").read_text())["found"]
    code, printed = replayed(root, bundle, capsys)
    assert code == 0 and "NOT reproduced" in printed
    assert (f"│ {technique} " in printed) == (technique in ("contrastive", "layer_sync"))
    assert (
        math_same(printed, content["loss"])
        and "first gradient that is not finite, going back: none" in printed
    )


def math_same(printed, loss):
    return f"{loss:.6g} (in the run {loss:.6g}," in printed


def test_a_spike_is_reproduced_against_the_limits_of_the_run(root, capsys):
    # medians known after two steps, and factors that ordinary steps exceed
    low = (
        "callbacks.guard.warmup=2",
        "callbacks.guard.norm_factor=1.01",
        "callbacks.guard.loss_factor=1.01",
    )
    code, printed = replayed(root, stopped(fitting(root, "spikes", *STOPS, *low)), capsys)
    assert (
        code == 1 and "its limit" in printed and "first output that is not finite: none" in printed
    )


def test_a_folder_that_is_no_bundle_is_an_error(root, tmp_path):
    with pytest.raises(CorruptCheckpoint, match="not a replay bundle"):
        recipes.train(configuration("train", root, f"replay='{tmp_path}'"))
