"""Epochs and clipping are those configured; a validation that is not finite ends no run."""

import json

import pytest

from tests.app.runs import SMALLEST, run, settings
from tests.app.test_train import weights
from tinyflux_pl.app.components import Parts
from tinyflux_pl.app.fitting.trainable import build_trainable


def test_an_epoch_ends_with_the_step_that_has_drawn_every_sample(tmp_path):
    """48 samples in batches of 32: after two steps, not after one."""
    sized = (
        "hardware.batch_size=32",
        "hardware.accumulation=2",
        "steps=2",
        "callbacks.checkpoint.every_steps=0",
    )
    quick = (
        *SMALLEST,
        "data.evaluation_prompts=0",
        "callbacks.preview.every_steps=0",
        "callbacks.validation.every_steps=0",
    )
    run("train", tmp_path, *quick, *sized, "callbacks.checkpoint.every_epochs=1", "run=x")
    saved = {path.name for path in (tmp_path / "outputs" / "x" / "checkpoints").glob("[!.]*")}
    assert saved == {"epoch_00001", "step_0000002"}


@pytest.mark.parametrize(
    ("line", "clip"), [("callbacks.clip=null", None), ("callbacks.clip=0.5", 0.5)]
)
def test_the_configured_clip_norm_is_used_by_the_module(tmp_path, line, clip):
    parts = Parts.from_config(settings("train", tmp_path, *SMALLEST, line))
    assert build_trainable(parts, tmp_path, 0, compiled=False).module.clip == clip


def test_a_nonfinite_validation_loss_is_reported_and_does_not_end_the_run(
    tmp_path, monkeypatch, caplog
):
    """Training is done and saved by then: that one number is not one must not cost the results."""
    from tinyflux_pl.objectives.validation import FixedGrid

    honest = FixedGrid.errors
    nan = float("nan")
    monkeypatch.setattr(
        FixedGrid, "errors", lambda *args: {k: v * nan for k, v in honest(*args).items()}
    )
    run("train", tmp_path, "run=blind", "hardware.precision=32-true")
    folder = tmp_path / "outputs" / "blind"
    results = json.loads((folder / "results.json").read_text())
    assert results["validation_loss"] == "nan" and results["steps"] == 8
    assert "validation at step 8: validation/loss is nan" in caplog.text
    assert ",nan" in (folder / "csv" / "metrics.csv").read_text()
    assert all(value.isfinite().all() for value in weights(tmp_path, "blind").values())
