"""Full training with frozen parts."""

import pytest
from torch import nn

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.methods.full import Full
from tinyflux_pl.methods.registry import build_method


def network():
    return nn.ModuleDict({"encoder": nn.Linear(2, 2), "encoder2": nn.Linear(2, 2)})


def test_named_parts_stay_and_parts_of_like_names_train():
    module = network()
    method = Full(["encoder"])
    build_method("full", method.config()).prepare(module)
    trained = {name for name, p in module.named_parameters() if p.requires_grad}
    assert trained == {"encoder2.weight", "encoder2.bias"}


def test_unknown_names_and_networks_without_anything_to_train_are_refused():
    with pytest.raises(ConfigError, match="did you mean 'encoder'"):
        Full(["encodr"]).prepare(network())
    with pytest.raises(ConfigError, match="nothing is left"):
        Full(["encoder", "encoder2"]).prepare(network())
