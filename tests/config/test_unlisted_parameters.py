"""Parameters listed in conf/ are set by name, others with a plus, as the error states."""

import pytest

from tests.app.runs import CONF
from tests.app.test_bad_input import refused
from tinyflux_pl.app.cli.check_line import check_line
from tinyflux_pl.core import errors


@pytest.mark.parametrize(
    ("required", "line"),
    [
        ([], "model.sol_geometric_weight=0.5"),
        (
            ["++optimizer={_target_: torch.optim.SGD, _partial_: true, lr: 0.1}"],
            "optimizer.nesterov=true",
        ),
    ],
)
def test_an_unlisted_parameter_is_refused_with_the_plus_syntax(required, line):
    with refused(errors.ConfigError) as caught:
        check_line([*required, line], CONF, "train")
    assert (
        f"+{line.partition('=')[0]}=..." in caught.value.cure
        and "did you mean" not in caught.value.cure
    )
    check_line([*required, f"+{line}"], CONF, "train")


@pytest.mark.parametrize(
    "line",
    ["guidance.eta=0.2", "guidance.kind=apg", "optimizer.betas=[0.9,0.99]", "sampler.toward=data"],
)
def test_listed_parameters_are_set_without_a_plus(line):
    check_line([line], CONF, "train")
