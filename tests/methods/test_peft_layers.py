"""Adapters beside layers: each has the rank and strength of its plan, found without a search."""

import peft
import pytest
from torch import nn

from tinyflux_pl.methods import peft_layers
from tinyflux_pl.methods.layer_plan import LayerPlan


def network(layers):
    return nn.ModuleDict({f"block_{i}": nn.ModuleDict({"q": nn.Linear(4, 4)}) for i in layers})


@pytest.mark.parametrize("lokr", [False, True])
def test_peft_gets_one_pattern_for_all_layers_of_a_rank(lokr, monkeypatch):
    """It tries every pattern on every layer.

    With one a layer, and more layers than Python keeps compiled expressions (512), each trial
    compiles its pattern anew.
    """
    configs = []
    inject = peft.inject_adapter_in_model
    monkeypatch.setattr(
        peft, "inject_adapter_in_model", lambda c, *a, **k: (configs.append(c), inject(c, *a, **k))
    )
    net = network(range(24))
    plans = {f"block_{i}.q": LayerPlan(2 + i % 2, alpha=8.0 if i % 3 else 3.0) for i in range(24)}
    peft_layers.attach(net, plans, peft_layers.Kind(lokr=lokr))
    assert len(configs[0].rank_pattern) == len(configs[0].alpha_pattern) == 2
    for name, plan in plans.items():
        layer = net.get_submodule(name)
        assert layer.r[peft_layers.TRAINED] == plan.rank
        assert layer.scaling[peft_layers.TRAINED] == plan.alpha / plan.rank


def test_a_name_that_begins_as_another_keeps_its_own_rank():
    net = network((1, 11, 111))
    net["block_2"] = nn.ModuleDict({"block_1": nn.ModuleDict({"q": nn.Linear(4, 4)})})
    plans = {
        "block_1.q": LayerPlan(1),
        "block_11.q": LayerPlan(2),
        "block_2.block_1.q": LayerPlan(3),
    }
    peft_layers.attach(net, plans, peft_layers.Kind())
    ranks = {name: layer.r[peft_layers.TRAINED] for name, layer in peft_layers.adapted(net).items()}
    assert ranks == {name: plan.rank for name, plan in plans.items()}
