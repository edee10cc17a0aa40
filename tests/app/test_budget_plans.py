"""`engine.budget=` with `plan=only`: every family fits 12 GiB, or says which stage does not."""

import pytest

from tests.app.runs import settings
from tests.app.test_inference_memory import MODELS
from tests.app.test_simulation import TRAINED
from tinyflux_pl.app.drawing import build_pipeline, staging
from tinyflux_pl.app.memory import inference_memory
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.engine.placement import OFFLOAD, SEQUENTIAL, fits, parsed_bytes


def planned(root, model, budget, *more):
    line = (f"model={model}", f"engine.budget={budget}", "hardware.accelerator=gpu", *more)
    return inference_memory.plan(settings("generate", root, *line))


@pytest.mark.parametrize("model", MODELS)
def test_every_family_fits_twelve_gibibytes(model, tmp_path):
    plan = planned(tmp_path, model, "12GiB")
    assert fits(plan.memory, parsed_bytes("12GiB")) and plan.placement.text == "device"
    assert "every stage fits 12.00 GiB" in staging.placement_line(plan)
    for line, (part, count) in zip(
        staging.offload_lines(plan), plan.placement.blocks_in_turn.items(), strict=True
    ):
        assert line.startswith(f"{part}: {count} of {plan.blocks[part]} blocks in turn: ")
        assert len(line.rpartition(": ")[2].split()) == count


@pytest.mark.parametrize("choice", ["resident", "sequential", "offload", "auto"])
def test_a_choice_of_engine_is_its_placement(choice, tmp_path):
    chosen = settings("generate", tmp_path, "model=sdxl", f"engine={choice}", "engine.budget=9GiB")
    assert chosen.engine.placement == choice and chosen.engine.budget == "9GiB"
    assert settings("generate", tmp_path, "model=sdxl").engine.placement is None


@pytest.mark.parametrize(
    ("budget", "precision", "most"), [("11.5GiB", "fp8", 8), ("6GiB", None, 52)]
)
def test_flux1_dev_fits_with_few_blocks_in_turn(budget, precision, most, tmp_path):
    more = (f"engine.precision={precision}",) if precision else ()
    plan = planned(tmp_path, "flux1_dev", budget, *more)
    assert fits(plan.memory, parsed_bytes(budget)) and 0 < plan.placement.in_turn <= most


def test_a_budget_that_is_too_small_names_the_stages(tmp_path):
    plan = planned(tmp_path, "sdxl", "2GiB")
    assert staging.placement_line(plan).startswith("placement: sequential; does not fit 2.00 GiB: ")
    assert "denoise needs" in staging.placement_line(
        plan
    ) and "decode needs" in staging.placement_line(plan)


@pytest.mark.parametrize("budget", ["12", "1.5", "12GX"])
def test_a_budget_without_its_unit_is_answered_with_an_example(budget, tmp_path):
    with pytest.raises(ConfigError) as caught:
        planned(tmp_path, "sdxl", budget)
    assert caught.value.where == "engine.budget" and "12GiB" in caught.value.cure


def test_a_control_branch_refuses_blocks_in_turn(tmp_path):
    with_map = settings("generate", tmp_path, "model=sdxl", "control=map.png")
    with pytest.raises(ConfigError) as caught:
        build_pipeline.require_resident_branch(with_map, OFFLOAD)
    assert caught.value.where == "engine.budget"
    build_pipeline.require_resident_branch(with_map, SEQUENTIAL)
    without = settings("generate", tmp_path, "model=sdxl")
    build_pipeline.require_resident_branch(without, OFFLOAD)


@pytest.mark.parametrize("model", ["tiny", "unet", "flux_core", "fluxflow"])
def test_a_model_of_ones_own_without_its_parts_is_refused(model, tmp_path):
    line = (f"model={model}", "plan=only")
    with pytest.raises(ConfigError, match=r"(?s)no codec.* to plan with.*RUN; .*codec="):
        inference_memory.plan(settings("generate", tmp_path, *line))


def test_a_model_of_ones_own_is_planned_with_the_parts_that_are_named(tmp_path):
    line = ("model=tiny", *TRAINED["tiny"], "hardware.accelerator=cpu")
    without_path = [word for word in line if not word.startswith("path=")]
    with pytest.raises(ConfigError, match="no path to plan with"):
        inference_memory.plan(settings("generate", tmp_path, *without_path))
    plan = inference_memory.plan(settings("generate", tmp_path, *line, "height=32", "width=32"))
    assert plan.parts[0].name == "denoiser" and plan.host
