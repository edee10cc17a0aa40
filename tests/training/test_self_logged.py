"""`self.log` reaches the loggers under the step of the run, also in resumed runs."""

import csv

import pytest
from lightning.pytorch import Callback

from tests.faults.numbers import fitting
from tinyflux_pl.checkpoints import directory
from tinyflux_pl.training.metrics_file import MetricsFile

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec", "ignore:.*batch_size")


class Logging(Callback):
    """Logs as a user's callback would, and looks at the run's own metrics."""

    def __init__(self):
        self.seen = {}

    def on_train_batch_end(self, trainer, pl_module, *_):
        step = pl_module.step
        pl_module.log("mine/step", float(step))
        pl_module.log("mine/quiet", 1.0, logger=False)
        self.seen[step] = {name: float(v) for name, v in trainer.callback_metrics.items()}


def rows(root, *overrides, resumed=None):
    run = fitting(root, "x", "callbacks.log_every_steps=2", *overrides, resumed=resumed)
    log = MetricsFile(str(run.run_dir))
    log.continue_from(0 if resumed is None else resumed.step)
    run.trainer.loggers = [log]
    logging = Logging()
    run.trainer.callbacks.insert(-2, logging)
    run.fit()
    with open(log.path, newline="") as file:
        return run, logging, list(csv.DictReader(file))


def test_self_log_writes_at_log_points_and_at_the_end_with_the_step_of_the_run(tmp_path):
    run, logging, written = rows(tmp_path, "steps=5")
    logged = {int(row["step"]): float(row["mine/step"]) for row in written if row["mine/step"]}
    assert logged == {2: 2.0, 4: 4.0, 5: 5.0}
    assert "mine/quiet" not in written[0] and logging.seen[2]["mine/quiet"] == 1.0
    row = next(row for row in written if row["step"] == "4")
    assert logging.seen[4]["train/loss"] == float(row["train/loss"])
    resumed = directory.read(run.last_checkpoint)
    _, _, written = rows(tmp_path, "steps=7", resumed=resumed)
    logged = {int(row["step"]): row["mine/step"] for row in written if row["mine/step"]}
    assert logged[6] == "6.0" and logged[7] == "7.0"
