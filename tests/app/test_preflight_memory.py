"""The memory that a preflight names is no less than what the run then takes."""

import pytest

from tests.app.preflights import SMALL
from tests.app.runs import run
from tinyflux_pl.app.fitting.training_run import TrainingRun
from tinyflux_pl.app.preflight import preflight
from tinyflux_pl.engine.live_bytes import LiveBytes, storage_bytes


@pytest.mark.parametrize("more", [(), ("experts=lune_sol",), ("hardware.accumulation=2",)])
def test_a_run_takes_no_more_memory_than_its_preflight_says(tmp_path, monkeypatch, more):
    bounds, peaks = [], []
    budget, fit = preflight.budget, TrainingRun.fit

    def printed(*arguments):
        figures, dry_run = budget(*arguments), arguments[3]
        planned = dry_run.plan.worst(True).total  # the bytes of tensors, equal on every machine
        bounds.append(planned)
        assert planned <= figures.memory[1]
        return figures

    def counted(self):
        network = self.trainable.denoiser
        before = storage_bytes([*network.parameters()], [*network.buffers()])
        with LiveBytes("cpu") as count:
            fit(self)
        peaks.append(before + max(live for _, live in count.history))

    monkeypatch.setattr(preflight, "budget", printed)
    monkeypatch.setattr(TrainingRun, "fit", counted)
    run("train", tmp_path, *SMALL, "steps=4", "run=memory", "preflight=true", *more)
    assert len(bounds) == len(peaks) == 1
    assert 0 < peaks[0] <= bounds[0]
