"""The placement of a drawing's parts, and the memory of its stages: planned beside measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from tinyflux_pl.app import inference_memory, tables
from tinyflux_pl.app.inference_memory import GenerationPlan
from tinyflux_pl.config.schema import Generate
from tinyflux_pl.engine.memory_plan import size
from tinyflux_pl.engine.placement import RESIDENT, SEQUENTIAL, Placement


def placement_of(config: Generate) -> Placement:
    """The placement that `engine` asks for, of auto by the plan; printed unless resident.

    A simulation is too small to plan: its parts take turns.
    """
    if config.engine.chosen == "resident":
        return RESIDENT
    if config.simulate:
        return SEQUENTIAL
    plan = inference_memory.plan(config)
    tables.line(f"placement: {plan.placement}")
    return plan.placement


def with_stored_prompts(pipeline: Any, config: Generate) -> Any:
    """The pipeline whose encoder keeps embeddings in `engine.prompts`, if that is given."""
    from tinyflux_pl.text.prompt_store import StoredPrompts

    if config.engine.prompts is None:
        return pipeline
    text = StoredPrompts(pipeline.sampler.text, Path(config.engine.prompts).expanduser())
    return replace(pipeline, sampler=replace(pipeline.sampler, text=text))


def verdict(plan: GenerationPlan) -> str:
    """One line: the placement, and whether its stages stay within the budget."""
    if plan.budget is None:
        return f"placement: {plan.placement}"
    over = [stage for stage in plan.memory.stages if stage.host == plan.host]
    over = [stage for stage in over if stage.total > plan.budget]
    if not over:
        return f"placement: {plan.placement}; every stage fits {size(plan.budget)}"
    needs = ", ".join(f"{stage.name} needs {size(stage.total)}" for stage in over)
    return f"placement: {plan.placement}; does not fit {size(plan.budget)}: {needs}"


def measured(drawing: Any, config: Generate) -> list[str]:
    """Lines on the rise of memory in each stage, where the parts take turns."""
    if config.engine.chosen == "resident":
        return []
    growth = drawing.sampler.stage.growth
    return [f"stage {name}: memory rose by {size(count)}" for name, count in growth.items()]
