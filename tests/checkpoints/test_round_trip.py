"""A checkpoint that is read back is compared bit by bit, numbers that are not finite included."""

import pytest
import torch

from tinyflux_pl.checkpoints import directory
from tinyflux_pl.checkpoints.round_trip import require_same
from tinyflux_pl.core.errors import CorruptCheckpoint


@pytest.fixture
def saved(tmp_path):
    weights = {
        "a": torch.tensor([1.0, float("nan"), -0.0]),
        "b": torch.ones(2, 2, dtype=torch.bfloat16),
    }
    averaged = {"a": torch.zeros(3), "b": torch.ones(2, 2)}
    optimizer = {
        "state": {0: {"step": torch.tensor(3.0), "m": torch.ones(3)}},
        "param_groups": [{"lr": 0.1}],
    }
    state = {"step": 1, "optimizer": optimizer}
    read = directory.save(
        tmp_path / "x", step=1, config={}, weights=weights, averaged=averaged, state=state
    )
    return read, weights, averaged, optimizer


def test_a_checkpoint_reads_back_bit_equal(saved):
    require_same(*saved)


def test_a_single_changed_bit_is_reported_by_tensor_name(saved):
    read, weights, averaged, optimizer = saved
    flipped = weights["a"].clone()
    flipped.view(torch.uint8)[8] ^= 1
    for change, name in (
        (({**weights, "a": flipped}, averaged, optimizer), "weights.a"),
        (
            ({**weights, "a": torch.tensor([1.0, float("nan"), 0.0])}, averaged, optimizer),
            "weights.a",
        ),
        (
            (weights, {**averaged, "b": torch.ones(2, 2, dtype=torch.bfloat16)}, optimizer),
            "averages.b",
        ),
        (
            (weights, averaged, {**optimizer, "param_groups": [{"lr": 0.2}]}),
            "optimizer.param_groups.0.lr",
        ),
        (({"a": weights["a"]}, averaged, optimizer), "weights"),
        # the same bits
        (({**weights, "a": weights["a"].view(torch.int32)}, averaged, optimizer), "weights.a"),
        (({**weights, "b": weights["b"].reshape(4)}, averaged, optimizer), "weights.b"),
    ):
        with pytest.raises(CorruptCheckpoint) as caught:
            require_same(read, *change)
        assert caught.value.what.startswith(f"{name} differs")
