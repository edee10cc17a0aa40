"""A save that fails in its thread is reported by the next call, and a pending one finishes."""

import pytest

from tests.training.test_checkpoint_schedule import names, schedule
from tinyflux_pl.core.errors import DiskFull


@pytest.mark.parametrize("call", ["next save", "next step", "last"])
def test_a_failed_save_is_raised_by_the_next_call(tmp_path, module, trainer, full, call):
    full.append(4)
    kept = schedule(tmp_path)
    module.step = 4
    kept.on_train_batch_end(trainer, module)
    # at once: what is trained until the next save would be lost
    module.step = 5 if call == "next step" else 8
    kept._writer._thread.join()
    with pytest.raises(DiskFull, match="no space") as caught:
        kept.last if call == "last" else kept.on_train_batch_end(trainer, module)
    assert caught.value.where.endswith("step_0000004") and caught.value.cure


def test_the_end_of_training_saves_before_raising_an_earlier_failure(
    tmp_path, module, trainer, full
):
    full.append(4)
    kept = schedule(tmp_path)
    module.step = 4
    kept.on_train_batch_end(trainer, module)
    module.step = 5
    with pytest.raises(DiskFull, match="step_0000004"):
        kept.on_train_end(trainer, module)
    assert names(tmp_path) == ["step_0000005"]
    full.append(6)
    module.step = 6
    with pytest.raises(DiskFull, match="step_0000006"):
        kept.on_train_end(trainer, module)


def test_a_pending_save_finishes_when_training_raises(
    tmp_path, module, trainer, delayed_writes, full, capsys
):
    kept = schedule(tmp_path)
    module.step = 4
    kept.on_train_batch_end(trainer, module)
    delayed_writes.set()
    kept.on_exception(trainer, module, RuntimeError("training failed"))
    assert names(tmp_path) == ["step_0000004"] and not capsys.readouterr().err
    full.append(8)
    module.step = 8
    kept.on_train_batch_end(trainer, module)
    kept.on_exception(trainer, module, RuntimeError("training failed"))
    assert "could not be written: no space" in capsys.readouterr().err
