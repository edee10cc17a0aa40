"""What the datamodule asks of torch's loader."""

from types import SimpleNamespace

import pytest
import torch

from tests.training.small_run import Samples
from tinyflux_pl.training.datamodule import CachedLatents


@pytest.mark.parametrize("device, pins", [("cuda", True), ("cpu", False), (None, False)])
def test_batches_are_pinned_on_their_way_to_a_gpu_alone(device, pins):
    data = CachedLatents(Samples(), Samples(), 4, stop_step=2)
    if device is not None:
        strategy = SimpleNamespace(root_device=torch.device(device))
        data.trainer = SimpleNamespace(global_rank=0, world_size=1, strategy=strategy)
    assert data.train_dataloader().pin_memory is pins
