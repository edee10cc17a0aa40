"""Validation: a mean over samples, bit-equal on any number of ranks, at the due steps."""

import json
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tests.faults.forks import Child
from tests.training.small_run import Net, Samples
from tinyflux_pl.core import interruption
from tinyflux_pl.core.errors import Interrupted
from tinyflux_pl.objectives.validation import FixedGrid
from tinyflux_pl.training.datamodule import CachedLatents
from tinyflux_pl.training.ema import AveragedWeights
from tinyflux_pl.training.validation import Validation

COUNT, BATCH = 21, 4  # six batches, the last of one sample


class Rows(list):
    def log_metrics(self, metrics, step):
        self.append((step, dict(metrics)))


def ready(rank=0, world=1, every=2):
    torch.manual_seed(0)
    net, average, samples = Net(), AveragedWeights(), Samples(COUNT)
    average.averages = {name: p.detach() + 1 for name, p in net.named_parameters()}
    data = CachedLatents(samples, samples, BATCH, stop_step=10)
    plugin = SimpleNamespace(forward_context=torch.no_grad)
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    ranks = {"global_rank": rank, "is_global_zero": rank == 0, "world_size": world}
    trainer = SimpleNamespace(
        loggers=[Rows()],
        callbacks=[],
        callback_metrics={},
        precision_plugin=plugin,
        training=True,
        strategy=strategy,
        **ranks,
    )
    return (
        Validation(FixedGrid((0.2, 0.8), 0), data, average, every),
        trainer,
        SimpleNamespace(network=net, step=4),
    )


def test_the_validation_loss_is_the_sample_mean_with_averaged_weights():
    validation, trainer, module = ready()
    before = [p.detach().clone() for p in module.network.parameters()]
    validation.perform(trainer, module)
    samples, grid = validation.data.validation, validation.grid
    with torch.no_grad(), validation.average.applied(module.network):
        each = [grid.errors(module.network, samples.__getitems__([i])) for i in range(COUNT)]
    for name in each[0]:
        assert validation.errors[name] == pytest.approx(
            sum(float(e[name]) for e in each) / COUNT, rel=1e-5
        )
    assert trainer.loggers[0] == [(4, validation.errors)]
    assert all(torch.equal(a, b) for a, b in zip(before, module.network.parameters(), strict=True))
    assert isinstance(module.network, nn.Module) and module.network.training


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_the_batches_and_compute_a_bit_equal_loss(tmp_path, world):
    validation, trainer, module = ready()
    validation.perform(trainer, module)

    def share(rank):
        def work():
            store = f"file://{tmp_path}/meet"
            torch.distributed.init_process_group(
                "gloo", init_method=store, rank=rank, world_size=world
            )
            validation, trainer, module = ready(rank, world)
            seen, loss = [], validation.grid.errors
            validation.grid.errors = lambda net, batch: seen.append(len(batch)) or loss(net, batch)
            validation.perform(trainer, module)
            (tmp_path / f"{rank}.json").write_text(json.dumps([validation.errors, sum(seen)]))

        return work

    children = [Child(share(rank), tmp_path / f"{rank}.log") for rank in range(world)]
    assert [child.wait().code for child in children] == [0] * world, (
        tmp_path / "0.log"
    ).read_text()
    losses = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(world)]
    assert losses[0][0] == validation.errors and sum(samples for _, samples in losses) == 2 * COUNT


def test_validation_runs_every_n_steps_and_at_the_end_also_after_resume():
    validation, trainer, module = ready(every=4)
    module.step = 0
    validation.on_train_start(trainer, module)
    for step in range(1, 10):
        for _ in range(2):  # micro-batches
            module.step = step
            validation.on_train_batch_end(trainer, module)
    validation.on_train_end(trainer, module)
    assert [step for step, _ in trainer.loggers[0]] == [4, 8, 9]
    for start, due in ((8, [8]), (7, [])):
        validation, trainer, module = ready(every=4)
        module.step = start
        validation.on_train_start(trainer, module)
        assert [step for step, _ in trainer.loggers[0]] == due


def test_only_rank_zero_prints_the_validation_loss(capsys):
    validation, trainer, module = ready()
    trainer.is_global_zero = False
    validation.perform(trainer, module)
    assert capsys.readouterr().out == ""
    trainer.is_global_zero = True
    validation.perform(trainer, module)
    line = f"step 4: validation loss {validation.errors['validation/loss']:.4f}\n"
    assert capsys.readouterr().out == line


def test_a_stop_request_ends_validation_between_batches_without_logging():
    validation, trainer, module = ready()
    errors, calls = validation.grid.errors, []

    def asking(*args):
        calls.append(1)
        interruption.request_stop(15)
        return errors(*args)

    validation.grid.errors = asking
    raw = module.network.img_in.weight.detach().clone()
    with interruption.listening(), pytest.raises(Interrupted):
        validation.perform(trainer, module)
    assert (
        len(calls) == 1
        and trainer.loggers[0] == []
        and torch.equal(module.network.img_in.weight, raw)
    )
