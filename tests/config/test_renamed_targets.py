"""Renamed targets open under the names of older configurations and checkpoints."""

import pytest

from tinyflux_pl.config import allowlist, saved_nodes
from tinyflux_pl.config.renamed_targets import RENAMED, current_target
from tinyflux_pl.core.errors import ConfigError


@pytest.mark.parametrize("old", RENAMED)
def test_an_old_target_name_resolves_to_the_new_one(old):
    target = allowlist.resolve(old)
    assert f"{target.__module__}.{target.__qualname__}" == RENAMED[old]


def test_other_names_and_values_are_unchanged():
    assert [current_target(value) for value in ("torch.optim.SGD", 5, None)] == [
        "torch.optim.SGD",
        5,
        None,
    ]


@pytest.mark.parametrize("saved", ["old", "new"])
@pytest.mark.parametrize("now", ["old", "new"])
def test_a_saved_node_matches_the_present_one_under_either_name(saved, now):
    old = "tinyflux_pl.data.shapes.Shapes"
    names = {"old": old, "new": RENAMED[old]}
    node, present = {"_target_": names[saved]}, {"_target_": names[now]}
    saved_nodes.require_saved(node, "schedule", present, "config.json")
    with pytest.raises(ConfigError, match="this file asks for"):
        saved_nodes.require_saved(node, "schedule", {}, "config.json")
