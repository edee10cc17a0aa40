"""Parameters that are there: those that conf/ lists are set by name, the others with a plus, as the
error says.
"""

import pytest

from tests.app.runs import CONF
from tests.app.test_bad_input import refused
from tinyflux_pl.app.cli.command_line import prepare
from tinyflux_pl.core import errors


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ([], "model.sol_geometric_weight=0.5"),
        (
            ["++optimizer={_target_: torch.optim.SGD, _partial_: true, lr: 0.1}"],
            "optimizer.nesterov=true",
        ),
    ],
)
def test_a_parameter_that_is_real_but_not_listed_is_told_how_to_add(given, line):
    with refused(errors.ConfigError) as caught:
        prepare([*given, line], CONF, "train")
    assert (
        f"+{line.partition('=')[0]}=..." in caught.value.cure
        and "did you mean" not in caught.value.cure
    )
    prepare([*given, f"+{line}"], CONF, "train")


@pytest.mark.parametrize(
    "line",
    ["guidance.eta=0.2", "guidance.kind=apg", "optimizer.betas=[0.9,0.99]", "sampler.toward=data"],
)
def test_what_a_choice_offers_can_be_set_without_a_plus(line):
    prepare([line], CONF, "train")
