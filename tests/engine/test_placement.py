"""Placements: what lies on the device in each stage, and which one a budget chooses."""

import pytest
from torch import nn

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.engine import placement as p

NEEDS = p.Needs(
    denoiser=240,
    blocks=30,
    text={"t5": 90, "clip": 2},
    text_in_turn=False,
    codec=3,
    drawing=5,
    decoding=30,
)


def totals(place, host=False):
    plan = p.planned(place, NEEDS, host=host)
    return {stage.name: (stage.total, stage.host) for stage in plan.stages}


def test_a_stage_holds_its_own_part_alone_where_parts_take_turns():
    assert totals(p.RESIDENT) == {
        "text": (332, False),
        "denoise": (337, False),
        "decode": (365, False),
    }
    assert totals(p.SEQUENTIAL) == {
        "text": (92, False),
        "denoise": (245, False),
        "decode": (33, False),
    }
    assert totals(p.OFFLOAD)["denoise"] == (35, False)
    assert totals(p.ON_HOST[1])["text"] == (92, True)


def test_on_a_cpu_the_denoiser_stays():
    assert totals(p.SEQUENTIAL, host=True) == {
        "text": (332, True),
        "denoise": (245, True),
        "decode": (273, True),
    }


@pytest.mark.parametrize(
    ("budget", "place"),
    [
        (400, p.RESIDENT),
        (250, p.SEQUENTIAL),
        (100, p.OFFLOAD),
        (50, p.ON_HOST[1]),
        (10, p.ON_HOST[1]),
        (None, p.RESIDENT),
    ],
)
def test_auto_takes_the_fastest_that_fits(budget, place):
    assert p.chosen("auto", NEEDS, budget, host=False) == place
    assert p.fits(p.planned(place, NEEDS, host=False), budget or 400) == (budget != 10)


def test_names_and_budgets():
    assert p.chosen("sequential", NEEDS, None, host=False) == p.SEQUENTIAL
    assert p.chosen("auto", NEEDS, 10, host=True) == p.SEQUENTIAL
    assert p.parsed_bytes("12GiB") == 12 * 2**30 and p.parsed_bytes("1.5 GB") == 1_500_000_000
    for wrong in ("12", "GiB", "-1GiB", "0GiB"):
        with pytest.raises(ConfigError, match="its unit"):
            p.parsed_bytes(wrong)
    with pytest.raises(ConfigError, match="sequential"):
        p.chosen("elsewhere", NEEDS, None, host=False)
    with pytest.raises(ConfigError, match="no other memory"):
        p.chosen("offload", NEEDS, None, host=True)


def test_by_blocks_two_of_the_largest_and_all_else_are_there():
    net = nn.Module()
    net.blocks = nn.ModuleList([nn.Linear(4, width, bias=False) for width in (4, 8, 4, 8)])
    net.end = nn.Linear(2, 2, bias=False)
    assert p.bytes_by_blocks(net) == 2 * 4 * 8 * 4 + 16
