"""Parts of a network that references alone reach train where the data has references."""

import pytest
from torch import nn

from tests.app.runs import settings
from tinyflux_pl.app.fitting import starting_point
from tinyflux_pl.data.records.image_pairs import PairedImages
from tinyflux_pl.methods.full import Full

PAIRS = ("data=pairs", "data.root=pictures")


class Network(nn.Module):
    """A layer for images, one for references, and one of a like name."""

    reference_parts = ("image_cond",)

    def __init__(self):
        super().__init__()
        self.net = nn.ModuleDict(
            {name: nn.Linear(1, 1, bias=False) for name in ("image", "image_cond", "image_cond2")}
        )


@pytest.mark.parametrize(("data", "frozen"), [((), {"net.image_cond.weight"}), (PAIRS, set())])
def test_parts_of_references_are_frozen_without_references(data, frozen, tmp_path):
    network = Network()
    config = settings("train", tmp_path, *data)
    starting_point.complete(config, network, Full(), silent=True)
    assert {k for k, p in network.named_parameters() if not p.requires_grad} == frozen


def test_the_class_of_pairs_is_named_as_configurations_name_it():
    assert f"{PairedImages.__module__}.{PairedImages.__qualname__}" == starting_point.PAIRED
