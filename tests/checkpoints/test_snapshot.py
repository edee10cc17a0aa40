"""A copy that training cannot change, of nothing that could not be read back."""

from collections import OrderedDict

import numpy as np
import pytest
import torch

from tinyflux_pl.checkpoints.snapshot import snapshot
from tinyflux_pl.core.errors import CheckpointMismatch


def test_a_snapshot_is_unaffected_by_later_training():
    module = torch.nn.Linear(2, 2)
    state = snapshot(
        {"weights": module.state_dict(), "list": [module.bias], "pair": (module.bias, 1)}
    )
    before = module.bias.detach().clone()
    with torch.no_grad():
        module.bias += 1
    assert all(
        torch.equal(t, before)
        for t in (state["weights"]["bias"], state["list"][0], state["pair"][0])
    )
    assert not state["list"][0].requires_grad and state["weights"].keys() == {"weight", "bias"}


def test_a_snapshot_of_any_scalar_type_loads_weights_only(tmp_path):
    kept = OrderedDict(
        lr=np.float64(0.5),
        name=np.str_("x"),
        betas=(0.9, 0.95),
        none=None,
        on=True,
        count=3,
        t=[1.5],
    )
    torch.save(snapshot(kept), tmp_path / "state.pt")
    loaded = torch.load(tmp_path / "state.pt", weights_only=True)
    assert loaded == dict(lr=0.5, name="x", betas=(0.9, 0.95), none=None, on=True, count=3, t=[1.5])
    assert (
        type(loaded["lr"]) is float and type(loaded["on"]) is bool and type(loaded["count"]) is int
    )


@pytest.mark.parametrize("value", [np.zeros(2), object(), {1, 2}, lambda: 0])
def test_a_snapshot_that_could_not_be_read_back_is_refused(value):
    with pytest.raises(CheckpointMismatch, match=type(value).__name__):
        snapshot({"state": [value]})
