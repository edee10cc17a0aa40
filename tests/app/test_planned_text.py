"""Activations of text encoders: planned from skeletons beside counted ones of real encoders."""

import functools
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.app.runs import settings
from tinyflux_pl.app.memory import inference_memory, planned_text
from tinyflux_pl.config.build import build
from tinyflux_pl.core.errors import MemoryPlanError
from tinyflux_pl.engine.block_sizes import BlockSizes
from tinyflux_pl.engine.live_bytes import LiveBytes
from tinyflux_pl.engine.memory_plan import MemoryPlan
from tinyflux_pl.engine.placement import Needs, chosen, planned


@functools.cache
def small(model):
    """The encoder of a release in small, with random weights."""
    config = settings("generate", Path("none"), f"model={model}")
    return build(inference_memory.without_unneeded_weights(config).text, "text").simulated(0)


def request(tmp_path, model, *overrides):
    return settings("generate", tmp_path, f"model={model}", *overrides)


def counted(text, prompts, null=False):
    """Most bytes alive while a real encoder encodes them, on the CPU."""
    text.sequential = False  # else each call reads the weights
    # in inference mode torch would hide what attention makes of its mask
    with torch.no_grad():
        text.encode(prompts)  # reads the weights
        with LiveBytes() as count:
            kept = (text.null() if null else None, text.encode(prompts))
    del kept
    return max(live for _, live in count.history)


@pytest.mark.parametrize(
    "model", ["flux1_dev", "sdxl", "sd35_medium", "flux2_dev", "flux2_klein_4b", "flux3"]
)
def test_encoding_takes_what_is_planned(model, tmp_path):
    text = small(model)
    if model == "flux3":
        text.length = 160
    config = request(tmp_path, model, "prompt=night", "guidance.scale=1.0")
    predicted = planned_text.encoding(text, text.skeletons(), config)
    # embeddings are as long as the prompt only where pad_multiple says so
    prompt = "night" if model != "flux3" else "night " * 23
    assert predicted == pytest.approx(counted(text, [prompt]), rel=0.1)


def test_the_prompts_and_the_negative_one_are_counted_together(tmp_path):
    text, file = small("sd35_medium"), tmp_path / "prompts.txt"
    file.write_text("one\ntwo\nthree\none\n")
    words = (f"prompt_file='{file}'", "guidance.scale=4.0", "negative_prompt=blurred")
    config = request(tmp_path, "sd35_medium", *words)
    assert planned_text.distinct(config) == 4
    predicted = planned_text.encoding(text, text.skeletons(), config)
    assert predicted == pytest.approx(counted(text, ["a", "b", "c", "d"]), rel=0.1)
    unguided = request(tmp_path, "sd35_medium", words[0], "guidance.scale=1.0")
    assert planned_text.distinct(unguided) == 3
    alone = request(tmp_path, "sd35_medium", words[0], "guidance.scale=4.0")
    predicted = planned_text.encoding(text, text.skeletons(), alone)
    assert predicted == pytest.approx(counted(text, ["a", "b", "c"], null=True), rel=0.1)


def test_the_plan_of_the_text_stage_has_activations(tmp_path):
    plan = inference_memory.plan(request(tmp_path, "flux1_dev", "engine=sequential"))
    stages = {stage.name: stage for stage in plan.memory.stages}
    # T5-XXL, one prompt of 512 tokens: 96 MiB, of which 32 are scores in bfloat16
    assert 90 < stages["text"].rows["activations"] / 2**20 < 110
    memory = MemoryPlan((stages["text"],))
    with pytest.raises(MemoryPlanError) as caught:  # smaller images would not help
        replace(plan, memory=memory).require(stages["text"].total - 1)
    assert "height=" not in caught.value.cure
    hashed = ("deep_v42", "codec=pixels", "text=hashed", "height=64", "width=64")
    plan = inference_memory.plan(request(tmp_path, *hashed))
    assert "activations" not in plan.memory.stages[0].rows  # there is no network


def test_text_encoders_leave_room_for_their_activations():
    text = {"t5": BlockSizes(100, (100,) * 10)}
    needs = Needs(BlockSizes(500), text, False, 0, 0, 0, encoding=150)
    for encoding, in_turn in ((0, ()), (150, (("t5", 3),)), (400, (("t5", 6),))):
        needs = replace(needs, encoding=encoding)
        placement = chosen("sequential", needs, 1150, host=False)
        plan = planned(placement, needs, host=False)
        assert plan.stages[0].total <= 1150 and placement.text_in_turn == in_turn
    needs = replace(needs, encoding=1000)
    assert chosen("sequential", needs, 1150, host=False).text == "host"
    on_host = planned(chosen("sequential", needs, 1150, host=False), needs, host=False)
    assert on_host.stages[0].host and on_host.stages[0].rows["activations"] == 1000
