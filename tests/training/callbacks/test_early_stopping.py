"""A run ends when its metric no longer improves, at the same step when it was cut before."""

from types import SimpleNamespace

import pytest

from tests.app.runs import SMALLEST, configuration, settings
from tinyflux_pl.app import run as recipes
from tinyflux_pl.app.fitting.chosen_callbacks import chosen_callbacks
from tinyflux_pl.core import files
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.training.callbacks.early_stopping import EarlyStopping
from tinyflux_pl.training.metric_log import log_scalars

CHOSEN = "callbacks=[default,early_stopping]"


def stopped_at(values, callback):
    """The index of the value at which training stops; None if it never does."""
    trainer = SimpleNamespace(
        callbacks=[callback],
        callback_metrics={},
        loggers=[],
        should_stop=False,
        is_global_zero=False,
    )
    module = SimpleNamespace(step=0)
    callback.on_train_start(trainer, module)
    for index, value in enumerate(values):
        module.step += 1
        log_scalars(trainer, {"validation/loss": value, "train/loss": -index}, module.step)
        callback.on_train_batch_end(trainer, module)
        if trainer.should_stop:
            return index
    return None


@pytest.mark.parametrize(
    ("values", "mode", "min_delta", "expected"),
    [
        ([3, 2, 1, 0, -1], "min", 0.0, None),
        ([3, 2, 2.5, 2, 1], "min", 0.0, 3),
        ([1, 2, 3, 2, 2], "max", 0.0, 4),
        ([3, 2.9, 2.8, 1], "min", 0.5, 2),
        ([3, float("nan"), float("nan"), 1], "min", 0.0, 2),
    ],
)
def test_training_stops_after_values_without_an_improvement(values, mode, min_delta, expected):
    callback = EarlyStopping("validation/loss", mode, patience=2, min_delta=min_delta)
    assert stopped_at(values, callback) == expected


@pytest.mark.parametrize(
    ("values", "mode", "threshold", "expected"),
    [
        ([3, 2, 1.5, 1], "min", 1.5, 2),
        ([0.1, 0.5, 0.95, 0.96], "max", 0.9, 2),
        ([0.1, 0.5, float("nan"), 0.6], "max", 0.9, None),
        ([3, 2, 0.5, 0.4], "min", None, None),
    ],
)
def test_training_stops_at_the_first_value_beyond_the_threshold(values, mode, threshold, expected):
    callback = EarlyStopping("validation/loss", mode, patience=9, stopping_threshold=threshold)
    assert stopped_at(values, callback) == expected


def test_a_resumed_run_keeps_a_threshold_that_was_reached_before():
    first, second = (
        EarlyStopping("validation/loss", "min", 9, stopping_threshold=1.0) for _ in range(2)
    )
    assert stopped_at([2, 0.5], first) == 1
    second.restore(first.state())
    assert stopped_at([0.4], second) == 0


@pytest.mark.parametrize("cut", range(1, 5))
def test_a_resumed_run_stops_at_the_step_of_an_uninterrupted_one(cut):
    values = [3, 2, 2.5, 2.2, 2.1, 0]
    uninterrupted, first, second = (EarlyStopping("validation/loss", "min", 3) for _ in range(3))
    assert stopped_at(values, uninterrupted) == 4
    assert stopped_at(values[:cut], first) is None
    second.restore(first.state())
    assert stopped_at(values[cut:], second) == 4 - cut


def test_early_stopping_composes_with_default_callbacks_and_results_record_the_steps(tmp_path):
    line = (
        *(*SMALLEST, CHOSEN, "steps=6", "run=x", "data.evaluation_prompts=2"),
        *("callbacks.early_stopping.monitor=train/learning_rate_0", "callbacks.preview.count=2"),
        "callbacks.early_stopping.patience=2",  # the rate rises in the warm-up
    )
    recipes.train(configuration("train", tmp_path, *line))
    folder = tmp_path / "outputs" / "x"
    assert files.read_json(folder / "results.json")["steps"] == 3
    assert [path.name for path in (folder / "checkpoints").glob("step*")] == ["step_0000003"]


@pytest.mark.parametrize(
    ("override", "where"),
    [
        ("callbacks.early_stopping.monitor=val_loss", "callbacks.early_stopping.monitor"),
        ("callbacks.early_stopping.mode=least", "callbacks.early_stopping.mode"),
        ("callbacks.early_stopping.patience=0", "callbacks.early_stopping.patience"),
        ("callbacks.early_stopping.min_delta=-1", "callbacks.early_stopping.min_delta"),
        (
            "callbacks.early_stopping.stopping_threshold=inf",
            "callbacks.early_stopping.stopping_threshold",
        ),
    ],
)
def test_an_unknown_key_is_refused_by_name(tmp_path, override, where):
    with pytest.raises(ConfigError) as caught:
        settings("train", tmp_path, CHOSEN, override)
    assert caught.value.where == where


def chosen(root, extra):
    return chosen_callbacks(settings("train", root, f"callbacks.extra=[{extra}]").callbacks)


def test_an_additional_callback_is_configured_by_its_class(tmp_path):
    timer = "{_target_: lightning.pytorch.callbacks.Timer, duration: '00:00:10:00'}"
    actual = (
        "{_target_: tinyflux_pl.training.callbacks.early_stopping.EarlyStopping, "
        "monitor: train/loss, mode: min, patience: 3}"
    )
    first, second = chosen(tmp_path, f"{timer}, {actual}")
    assert first.time_remaining() > 500 and second.patience == 3


@pytest.mark.parametrize(
    "node",
    [
        "{_target_: lightning.pytorch.callbacks.ModelCheckpoint}",
        "{_target_: lightning.pytorch.callbacks.LambdaCallback}",
        "{_target_: os.system, command: ls}",
        "{_target_: tinyflux_pl.diffusion.paths.LinearPath}",
        "{monitor: train/loss}",
        "{_target_: lightning.pytorch.callbacks.Timer, durations: 3}",
    ],
)
def test_a_class_that_is_no_callback_is_refused_before_the_run(tmp_path, node):
    with pytest.raises(ConfigError, match=r"callbacks\.extra\.0"):
        chosen(tmp_path, node)
