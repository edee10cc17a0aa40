"""Placements: what lies on the device in each stage, and which one a budget chooses."""

from dataclasses import replace

import pytest

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.engine import placement as p
from tinyflux_pl.engine.block_sizes import BlockSizes
from tinyflux_pl.engine.memory_plan import CONTEXT

NEEDS = p.Needs(
    denoiser=BlockSizes(15, (25,) * 9),
    text={"t5": BlockSizes(10, (10,) * 8), "clip": BlockSizes(2)},
    one_encoder=False,
    codec=3,
    drawing=5,
    decoding=30,
)
BLOCKS = replace(p.OFFLOAD, in_turn=8)  # all but the first


def totals(placement, host=False):
    plan = p.planned(placement, NEEDS, host=host)
    return {stage.name: (stage.total, stage.host) for stage in plan.stages}


def test_sequential_placement_holds_one_part_per_stage():
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
    assert totals(BLOCKS)["denoise"] == (15 + 3 * 25 + 5, False)
    assert totals(replace(BLOCKS, text="host"))["text"] == (92, True)
    by_blocks = replace(BLOCKS, text_in_turn=(("t5", 7),))
    assert totals(by_blocks)["text"] == (10 + 3 * 10 + 2, False)


def test_a_cuda_context_is_reserved_in_each_stage_on_the_device():
    needs = replace(NEEDS, context=20)
    for placement in (p.SEQUENTIAL, replace(p.SEQUENTIAL, text="host")):
        stages = p.planned(placement, needs, host=False).stages
        assert [stage.rows.get(CONTEXT) for stage in stages] == [
            None if stage.host else 20 for stage in stages
        ]
    assert p.chosen("auto", NEEDS, 250, host=False) == p.SEQUENTIAL
    cheaper = p.chosen("auto", needs, 250, host=False)
    assert cheaper.in_turn > 0 and p.fits(p.planned(cheaper, needs, host=False), 250)
    assert p.chosen("auto", NEEDS, 93, host=False).text_in_turn == ()
    assert p.chosen("auto", needs, 93, host=False).text_in_turn == (("t5", 4),)


def test_activations_of_encoders_take_room_from_their_blocks():
    needs = replace(NEEDS, encoding=20)
    placement = p.chosen("auto", needs, 93, host=False)
    assert placement.text_in_turn == (("t5", 4),)
    text = p.planned(placement, needs, host=False).stages[0]
    assert text.rows["activations"] == 20 and text.total <= 93


def test_an_encoder_has_the_room_of_the_others_where_they_are_read_one_at_a_time():
    alone = replace(NEEDS, one_encoder=True)
    counts = [p.chosen("auto", needs, 81, host=False).text_in_turn for needs in (alone, NEEDS)]
    assert counts == [(("t5", 3),), (("t5", 4),)]


def test_on_a_cpu_the_denoiser_stays_in_memory():
    assert totals(p.SEQUENTIAL, host=True) == {
        "text": (332, True),
        "denoise": (245, True),
        "decode": (273, True),
    }


@pytest.mark.parametrize(
    ("budget", "placement"),
    [
        (400, p.RESIDENT),
        (250, p.SEQUENTIAL),
        (244, replace(p.OFFLOAD, in_turn=3)),
        (200, replace(p.OFFLOAD, in_turn=4)),
        (100, BLOCKS),
        (95, BLOCKS),
        (90, replace(BLOCKS, text_in_turn=(("t5", 3),))),
        (42, replace(BLOCKS, text_in_turn=(("t5", 7),))),
        (41, replace(BLOCKS, text="host")),
        (None, p.RESIDENT),
    ],
)
def test_auto_chooses_the_fastest_placement_that_fits(budget, placement):
    assert p.chosen("auto", NEEDS, budget, host=False) == placement
    fits = p.fits(p.planned(placement, NEEDS, host=False), budget or 400)
    assert fits == (budget is None or budget >= 95)


def test_a_chosen_placement_keeps_its_name_and_takes_what_fits():
    assert p.chosen("offload", NEEDS, None, host=False) == BLOCKS
    assert p.chosen("offload", NEEDS, 200, host=False) == replace(BLOCKS, in_turn=4)
    assert p.chosen("sequential", NEEDS, None, host=False) == p.SEQUENTIAL
    by_blocks = replace(p.SEQUENTIAL, text_in_turn=(("t5", 3),))
    assert p.chosen("sequential", NEEDS, 90, host=False) == by_blocks
    assert by_blocks.blocks_in_turn == {"text: t5": 3} and BLOCKS.blocks_in_turn == {"denoiser": 8}
    without_list = replace(NEEDS, denoiser=BlockSizes(240))  # a network without a list of blocks
    assert p.chosen("auto", without_list, 100, host=False) == p.SEQUENTIAL


def test_placement_names_and_byte_budgets_are_parsed_or_refused():
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
