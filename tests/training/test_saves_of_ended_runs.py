"""A run that ends saves its step if it is finite and the disk takes it, and hides no error."""

import pytest
import torch

from tests.training.small_run import Small
from tests.training.test_preemption import At, ended_by, failing
from tinyflux_pl.checkpoints import directory
from tinyflux_pl.core.errors import DiskFull, NumericsError
from tinyflux_pl.training.checkpoint_schedule import CheckpointSchedule
from tinyflux_pl.training.logged_metrics import LoggedMetrics
from tinyflux_pl.training.optimizers import MuonAdamW
from tinyflux_pl.training.preemption import Preemption
from tinyflux_pl.training.throughput import Throughput


def test_nonfinite_weights_are_not_saved(tmp_path):
    def spoil(module):
        with torch.no_grad():
            module.denoiser.img_in.weight[0, 0] = float("nan")
        raise ValueError("on purpose")

    assert ended_by(tmp_path, At("on_train_batch_end", 3, spoil), ValueError) == []


class Overflows(MuonAdamW):
    """Its fourth step makes weights, or only averages, nonfinite from a finite gradient."""

    taken = 0

    def step(self, closure=None):
        super().step(closure)
        Overflows.taken += 1
        if Overflows.taken == 4:
            self.param_groups[-1]["params"][0].data[0] = float("inf")


@pytest.mark.parametrize("every", [1, 4])
def test_weights_broken_by_a_step_do_not_replace_valid_checkpoints(tmp_path, every):
    Overflows.taken = 0
    small = Small(tmp_path, 40, optimizer=Overflows)
    kept = CheckpointSchedule(
        tmp_path / "checkpoints", {}, small.average, 1, every_steps=every, keep=1
    )
    small.trainer.callbacks += [LoggedMetrics(0, Throughput()), Preemption(kept), kept]
    with pytest.raises(NumericsError, match=r"step 4.*blocks\.0|step 4.*bias"):
        small.run()
    saved = [directory.read(path) for path in directory.list_steps(tmp_path / "checkpoints")]
    assert [checkpoint.step for checkpoint in saved] == ([3] if every == 1 else [])
    assert all(
        value.isfinite().all()
        for checkpoint in saved
        for value in checkpoint.weights("raw").values()
    )


def test_nonfinite_averages_are_not_saved(tmp_path):
    small = Small(tmp_path, 8)
    kept = CheckpointSchedule(tmp_path / "checkpoints", {}, small.average, 1, every_steps=2)

    def spoil(_):
        small.average.averages["img_in.bias"][0] = float("nan")

    spoils = At("on_train_batch_end", 3, spoil)
    small.trainer.callbacks += [LoggedMetrics(0, Throughput()), Preemption(kept), spoils, kept]
    with pytest.raises(NumericsError, match=r"the average of img_in\.bias"):
        small.run()
    assert [path.name for path in directory.list_steps(tmp_path / "checkpoints")] == [
        "step_0000002"
    ]


def test_no_second_save_is_attempted_on_a_full_disk(tmp_path):
    assert (
        ended_by(tmp_path, At("on_train_batch_end", 3, failing(DiskFull("full"))), DiskFull) == []
    )


def test_an_earlier_failed_save_is_not_reported_as_the_final_one(tmp_path, monkeypatch, capsys):
    save = directory.save

    def fails_at_two(path, **options):
        if options["step"] == 2:
            raise OSError("no such device")
        return save(path, **options)

    monkeypatch.setattr(directory, "save", fails_at_two)
    small = Small(tmp_path, 6, guarded=False)
    kept = CheckpointSchedule(tmp_path / "checkpoints", {}, small.average, 1, every_steps=2)

    def failing_once_that_is_known(_):
        kept._writer._thread.join()
        raise ValueError("on purpose")

    attack = At("on_train_batch_end", 2, failing_once_that_is_known)
    small.trainer.callbacks += [LoggedMetrics(0, Throughput()), Preemption(kept), kept, attack]
    with pytest.raises(ValueError, match="on purpose"):
        small.run()
    errors = capsys.readouterr().err
    assert "the last checkpoint could not be written: no such device" in errors
    assert "step 2 could not be saved: no such device" in errors  # tried again, and it failed again
    monkeypatch.setattr(directory, "save", save)
    kept._writer._failure = OSError("no such device")
    Preemption(kept).on_exception(small.trainer, small.module, ValueError())
    errors = capsys.readouterr().err
    assert "the last checkpoint could not be written" in errors and "step 2" not in errors
    assert directory.list_steps(tmp_path / "checkpoints")


def test_a_failing_final_save_is_reported_and_does_not_hide_the_error(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(
        directory, "save", lambda *_, **__: failing(OSError("no such device"))(None)
    )
    assert (
        ended_by(
            tmp_path, At("on_train_batch_end", 3, failing(ValueError("on purpose"))), ValueError
        )
        == []
    )
    assert "step 3 could not be saved: no such device" in capsys.readouterr().err
