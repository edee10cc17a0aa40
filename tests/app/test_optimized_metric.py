"""The metric that a run returns to a sweeper: checked before the start, measured at the end."""

import json
from pathlib import Path

import pytest

from tests.app.runs import SMALLEST, configuration, settings
from tinyflux_pl.app.fitting import optimized_metric
from tinyflux_pl.app.run import train
from tinyflux_pl.core.errors import ConfigError

QUICK = (*SMALLEST, "steps=2", "callbacks.preview.every_steps=0", "data.evaluation_prompts=2")


def returned(root, *overrides):
    config = configuration("train", root, *QUICK, *overrides)
    return train(config), json.loads((Path(config["run_dir"]) / "results.json").read_text())


def test_a_run_returns_its_optimized_metrics(tmp_path):
    names = "[validation_loss,validation/loss_t_0.5,prompt_accuracy,train/loss,parameters]"
    values, results = returned(tmp_path, f"optimized_metric={names}")
    assert all(type(value) is float for value in values)
    assert values[0] == results["validation_loss"] and values[2] == results["prompt_accuracy"]
    assert values[4] == results["parameters"] and values[1] != values[0]


def test_a_run_without_optimized_metric_returns_its_exit_code(tmp_path):
    code, _ = returned(tmp_path)
    assert type(code) is int and code == 0


@pytest.mark.parametrize(
    ("metric", "hint"),
    [
        ("validation_los", "did you mean validation_loss"),
        ("validation/loss_t_0.4", "validation/loss_t_0.3"),
        ("train/lune", "train/loss"),
        ("[validation_loss,accuracy]", "prompt_accuracy"),
    ],
)
def test_an_impossible_metric_is_refused_before_the_start(tmp_path, metric, hint):
    config = settings("train", tmp_path, f"optimized_metric={metric}")
    with pytest.raises(ConfigError) as caught:
        optimized_metric.check(config)
    assert caught.value.where == "optimized_metric" and hint in caught.value.cure
    assert not any(tmp_path.iterdir())


def test_unlogged_training_metrics_are_refused(tmp_path):
    config = settings(
        "train", tmp_path, "optimized_metric=train/loss", "callbacks.log_every_steps=0"
    )
    with pytest.raises(ConfigError):
        optimized_metric.check(config)


def test_a_callback_of_the_user_may_log_any_name(tmp_path):
    extra = (
        "callbacks.extra=[{_target_: lightning.pytorch.callbacks.Timer, duration: '00:00:01:00'}]"
    )
    config = settings("train", tmp_path, "optimized_metric=my/metric", extra)
    optimized_metric.check(config)


def test_the_loss_of_an_expert_is_available_only_with_the_expert(tmp_path):
    config = settings("train", tmp_path, "optimized_metric=train/lune", "experts=lune")
    optimized_metric.check(config)


def test_prompt_accuracy_without_a_verifier_is_refused(tmp_path):
    class Source:
        class train:
            class records:
                prompt_splits = ()

    config = settings("train", tmp_path, "optimized_metric=prompt_accuracy")
    with pytest.raises(ConfigError, match="no verifier"):
        optimized_metric.check_data(config, [Source])
