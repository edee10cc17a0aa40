"""Weights go into a network strictly, compiled or not."""

import pytest
import torch

from tinyflux_pl.checkpoints import directory
from tinyflux_pl.core.errors import CheckpointMismatch


@pytest.mark.parametrize("inner", [False, True])
def test_compiled_networks_save_and_load_plain_keys(tmp_path, inner):
    def network(compiled):
        module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.LayerNorm(3))
        if compiled and inner:
            module[0] = torch.compile(module[0])
        return torch.compile(module) if compiled and not inner else module

    compiled, plain = network(True), network(False)
    weights = compiled.state_dict()
    assert any("_orig_mod" in key for key in weights)
    saved = directory.save(
        tmp_path / "a", step=1, config={}, weights=weights, averaged=weights, state=None
    )
    assert (
        saved.weights("raw").keys() == saved.weights("averaged").keys() == plain.state_dict().keys()
    )
    directory.load_weights(plain, saved.weights("raw"), "here")
    assert all(map(torch.equal, plain.state_dict().values(), weights.values()))
    directory.load_weights(network(True), plain.state_dict(), "here")
    directory.load_weights(network(False), compiled.state_dict(), "here")


def test_mismatched_weights_are_refused_with_their_keys(tmp_path):
    module = torch.nn.Linear(2, 3)
    tensors = {"weight": torch.zeros(4, 2), "extra": torch.zeros(1)}
    with pytest.raises(CheckpointMismatch) as error:
        directory.load_weights(module, tensors, "here")
    text = str(error.value)
    assert "1 missing: bias" in text and "1 unexpected: extra" in text
    assert "weight (4, 2) for (3, 2)" in text
