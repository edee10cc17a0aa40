"""A released network updates as much in bf16-mixed as in fp32: weights are trained in fp32."""

import pytest
import torch

from tests import releases_flux1
from tests.app.runs import SHAPES, run
from tinyflux_pl.checkpoints import directory
from tinyflux_pl.checkpoints.directory import Checkpoint

RATE, STEPS = 1e-5, 8


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    return releases_flux1.flux1(tmp_path_factory.mktemp("release"), "schnell")


def trained(root, release, name, *overrides) -> Checkpoint:
    network = ("model=flux1_schnell", f"model.weights='{release}'", "text.length=16", "codec=flux1")
    rate = (
        "optimizer=adamw",
        f"optimizer.lr={RATE}",
        "optimizer.weight_decay=0",
        "schedule=constant",
    )
    small = (
        *rate,
        "schedule.warmup_steps=0",
        "hardware.batch_size=2",
        "callbacks.validation.every_steps=0",
    )
    off = ("callbacks.preview.count=1", "data.evaluation_prompts=0", "sampler.steps=1", *SHAPES)
    run("train", root, *network, *small, *off, f"steps={STEPS}", f"run={name}", *overrides)
    return directory.read(root / "outputs" / name / "checkpoints" / f"step_{STEPS:07d}")


def moved(checkpoint, start) -> float:
    """The share of the entries of all matrices that are not what they were."""
    ends = checkpoint.weights("raw")
    names = [name for name, value in start.items() if value.ndim == 2]
    changed = sum(int((ends[f"net.{name}"] != start[name]).sum()) for name in names)
    return changed / sum(start[name].numel() for name in names)


def test_bf16_training_updates_as_many_weights_as_fp32_and_saves_fp32(tmp_path, release):
    start = releases_flux1.transformer("schnell").state_dict()
    assert start["x_embedder.weight"].dtype == torch.float32
    single = trained(
        tmp_path, release, "single", "hardware.precision=32-true", "model.dtype=float32"
    )
    mixed = trained(
        tmp_path, release, "mixed", "hardware.precision=bf16-mixed", "model.dtype=bfloat16"
    )
    assert {value.dtype for value in mixed.weights("raw").values()} == {torch.float32}
    shares = moved(single, start), moved(mixed, start)
    assert shares[0] > 0.9 and shares[1] == pytest.approx(shares[0], abs=0.02)


def test_a_bf16_run_resumes_bit_equal(tmp_path, release):
    overrides = (
        "hardware.precision=bf16-mixed",
        "callbacks.checkpoint.every_steps=4",
        "callbacks.checkpoint.keep=9",
    )
    uninterrupted = trained(tmp_path, release, "whole", *overrides)
    halfway = tmp_path / "outputs" / "whole" / "checkpoints" / "step_0000004"
    again = trained(tmp_path, release, "again", *overrides, f"resume='{halfway}'")
    ends = uninterrupted.weights("raw"), again.weights("raw")
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
