"""Logged metrics: window means under the step of the run, equal after an interruption."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tinyflux_pl.checkpoints.snapshot import snapshot
from tinyflux_pl.training.logged_metrics import LoggedMetrics
from tinyflux_pl.training.throughput import Throughput


class Rows:
    """A logger that remembers."""

    def __init__(self):
        self.rows = []

    def log_metrics(self, metrics, step):
        self.rows.append((step, {k: v for k, v in metrics.items() if "second" not in k}))


class Steps:
    """Feed a callback with steps whose loss is the step number plus a part per micro-batch."""

    def __init__(self, start=0, every=4, micro_batches=2):
        self.module = SimpleNamespace(
            step=start,
            step_complete=True,
            step_metrics={},
            guard=None,
            optimizer_names=(),
            network=nn.ModuleDict({"image": nn.Linear(2, 2), "text": nn.Linear(2, 2)}),
        )
        self.trainer = SimpleNamespace(
            loggers=[Rows()], world_size=1, callbacks=[], callback_metrics={}
        )
        self.logged, self.micro_batches = LoggedMetrics(every, Throughput()), micro_batches
        self.logged.on_train_start(self.trainer, self.module)

    @property
    def rows(self):
        return self.trainer.loggers[0].rows

    def to(self, step):
        while self.module.step < step:
            for k in range(self.micro_batches):
                self.module.step_metrics = {"loss": torch.tensor(float(self.module.step + k))}
                if k == self.micro_batches - 1:
                    groups = [{"lr": float(self.module.step)}]
                    self.module.step_complete = False
                    self.logged.on_before_optimizer_step(
                        self.trainer, self.module, SimpleNamespace(param_groups=groups)
                    )
                    self.module.step_metrics["gradient_norm"] = torch.tensor(
                        10.0 * self.module.step
                    )
                    self.module.step += 1
                self.logged.on_train_batch_end(self.trainer, self.module)
        return self


def test_a_row_holds_means_over_its_steps_and_the_last_learning_rate():
    steps = Steps().to(9)
    assert [step for step, _ in steps.rows] == [4, 8]
    # steps 4 to 7 (counted before they are taken), micro-batches of which are 0 and 1 more
    expected = {"train/loss": 5.5 + 0.5, "train/gradient_norm": 55.0, "train/learning_rate_0": 7.0}
    assert steps.rows[1][1] == expected and steps.logged.latest.keys() > expected.keys()


def test_each_of_several_optimizers_logs_its_own_learning_rate():
    steps = Steps(every=1, micro_batches=1)
    optimizers = [SimpleNamespace(param_groups=[{"lr": lr}]) for lr in (1e-3, 4e-3)]
    steps.module.optimizer_names = ("autoencoder", "critic")
    steps.trainer.optimizers = optimizers
    for optimizer in optimizers:
        steps.logged.on_before_optimizer_step(steps.trainer, steps.module, optimizer)
    steps.module.step_metrics = {"loss": torch.tensor(1.0)}
    steps.module.step, steps.module.step_complete = 1, False
    steps.logged.on_train_batch_end(steps.trainer, steps.module)
    row = steps.rows[0][1]
    assert row["train/learning_rate_autoencoder_0"] == 1e-3
    assert row["train/learning_rate_critic_0"] == 4e-3


@pytest.mark.parametrize("cut", range(1, 9))
def test_a_run_interrupted_anywhere_logs_equal_rows(cut):
    uninterrupted, first = Steps().to(12), Steps().to(cut)
    second = Steps(start=cut)
    second.logged.restore(snapshot(first.logged.state()))
    assert first.rows + second.to(12).rows == uninterrupted.rows


def test_a_row_that_failed_to_be_written_is_written_after_resume():
    """Else a logger that fails would cost the steps since the last checkpoint."""
    uninterrupted, first = Steps().to(12), Steps().to(7)

    def fail(*_, **__):
        raise OSError("the logger's server does not answer")

    first.trainer.loggers[0].log_metrics = fail
    with pytest.raises(OSError, match="does not answer"):
        first.to(8)
    assert first.module.step_complete and first.module.step == 8
    second = Steps(start=8)
    second.logged.restore(snapshot(first.logged.state()))
    second.logged.on_train_start(second.trainer, second.module)
    assert first.rows + second.to(12).rows == uninterrupted.rows


def test_a_rejected_step_is_excluded_from_the_means():
    steps = Steps(micro_batches=1)
    steps.module.guard = SimpleNamespace(
        step_accepted=torch.tensor(True), skipped=torch.tensor(0.0)
    )
    steps.to(2)
    steps.module.step_metrics = {
        "loss": torch.tensor(float("nan")),
        "gradient_norm": torch.tensor(float("nan")),
    }
    steps.module.guard = SimpleNamespace(
        step_accepted=torch.tensor(False), skipped=torch.tensor(1.0)
    )
    steps.module.step += 1
    steps.logged.on_train_batch_end(steps.trainer, steps.module)
    steps.module.guard = SimpleNamespace(
        step_accepted=torch.tensor(True), skipped=torch.tensor(1.0)
    )
    ((step, row),) = steps.to(4).rows
    assert (
        step == 4
        and row["train/loss"] == pytest.approx((0 + 1 + 3) / 3)
        and row["train/skipped_steps"] == 1
    )


def test_an_interval_of_zero_logs_no_row():
    assert Steps(every=0).to(5).rows == []
