"""What is logged: means over a window, under the run's own step, the same after a cut."""

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
    """Feeds a callback with steps whose loss is the step's number, plus a part that micro-batches
    differ by.
    """

    def __init__(self, start=0, every=4, micro_batches=2):
        self.module = SimpleNamespace(
            step=start,
            step_complete=True,
            step_metrics={},
            guard=None,
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


def test_a_row_holds_the_means_of_its_steps_and_the_last_ones_learning_rate():
    steps = Steps().to(9)
    assert [step for step, _ in steps.rows] == [4, 8]
    # steps 4 to 7 (counted before they are taken), micro-batches of which are 0 and 1 more
    expected = {"train/loss": 5.5 + 0.5, "train/gradient_norm": 55.0, "train/learning_rate_0": 7.0}
    assert steps.rows[1][1] == expected and steps.logged.latest.keys() > expected.keys()


@pytest.mark.parametrize("cut", range(1, 9))
def test_a_run_cut_anywhere_logs_the_same(cut):
    whole, first = Steps().to(12), Steps().to(cut)
    second = Steps(start=cut)
    second.logged.restore(snapshot(first.logged.state()))
    assert first.rows + second.to(12).rows == whole.rows


def test_step_whose_row_cannot_be_written_completes_and_the_resumed_run_writes_the_row():
    """Else a logger that fails would cost the steps since the last checkpoint."""
    whole, first = Steps().to(12), Steps().to(7)

    def fail(*_, **__):
        raise OSError("the logger's server does not answer")

    first.trainer.loggers[0].log_metrics = fail
    with pytest.raises(OSError, match="does not answer"):
        first.to(8)
    assert first.module.step_complete and first.module.step == 8
    second = Steps(start=8)
    second.logged.restore(snapshot(first.logged.state()))
    second.logged.on_train_start(second.trainer, second.module)
    assert first.rows + second.to(12).rows == whole.rows


def test_a_refused_step_spoils_no_mean():
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


def test_zero_means_never():
    assert Steps(every=0).to(5).rows == []
