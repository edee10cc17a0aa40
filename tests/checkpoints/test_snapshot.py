"""A copy that training cannot change, of nothing that could not be read back."""

from collections import OrderedDict

import numpy as np
import pytest
import torch

from tinyflux_pl.checkpoints.snapshot import snapshot
from tinyflux_pl.core.errors import CheckpointMismatch


def test_what_training_changes_afterwards_is_not_in_it():
    module = torch.nn.Linear(2, 2)
    held = snapshot(
        {"weights": module.state_dict(), "list": [module.bias], "pair": (module.bias, 1)}
    )
    before = module.bias.detach().clone()
    with torch.no_grad():
        module.bias += 1
    assert all(
        torch.equal(t, before) for t in (held["weights"]["bias"], held["list"][0], held["pair"][0])
    )
    assert not held["list"][0].requires_grad and held["weights"].keys() == {"weight", "bias"}


def test_it_can_be_read_back_whatever_the_types_were(tmp_path):
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
    found = torch.load(tmp_path / "state.pt", weights_only=True)
    assert found == dict(lr=0.5, name="x", betas=(0.9, 0.95), none=None, on=True, count=3, t=[1.5])
    assert type(found["lr"]) is float and type(found["on"]) is bool and type(found["count"]) is int


@pytest.mark.parametrize("odd", [np.zeros(2), object(), {1, 2}, lambda: 0])
def test_what_could_not_be_read_back_is_refused_at_once(odd):
    with pytest.raises(CheckpointMismatch, match=type(odd).__name__):
        snapshot({"state": [odd]})
