"""Placement of the parts in sampling, and the memory of its stages: planned and measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from tinyflux_pl.app.drawing import weight_calibration
from tinyflux_pl.app.memory import inference_memory
from tinyflux_pl.app.memory.inference_memory import GenerationPlan
from tinyflux_pl.app.reporting import tables
from tinyflux_pl.config.schema import Generate
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.engine.block_sizes import in_turn
from tinyflux_pl.engine.memory_plan import size
from tinyflux_pl.engine.placement import RESIDENT, SEQUENTIAL, Placement


def placement_of(config: Generate) -> Placement:
    """The placement that `engine` asks for; with auto that of the plan. Printed unless resident.

    A simulation is too small to plan: its parts take turns.
    """
    if config.engine.chosen == "resident":
        return RESIDENT
    if config.simulate:
        return SEQUENTIAL
    plan = inference_memory.plan(config)
    for line in (f"placement: {plan.placement}", *offload_lines(plan)):
        tables.line(line)
    return plan.placement


def with_stored_prompts(pipeline: Any, config: Generate) -> Any:
    """The pipeline with text embeddings cached in `engine.prompts`, if that is set."""
    from tinyflux_pl.text.prompt_store import StoredPrompts

    if config.engine.prompts is None:
        return pipeline
    text = StoredPrompts(pipeline.sampler.text, Path(config.engine.prompts).expanduser())
    return replace(pipeline, sampler=replace(pipeline.sampler, text=text))


def with_packed_weights(pipeline: Any, config: Generate) -> Any:
    """The pipeline with weights quantized as `engine.precision` says, except in calibration.

    Prints a line on bytes and rounding; writes `engine.report`.
    """
    from tinyflux_pl.core.files import sha256, write_bytes
    from tinyflux_pl.engine.packing import pack

    name = config.engine.precision
    if config.from_image is not None and config.engine.calibrate is not None:
        cure = "leave from_image= or engine.calibrate= out"
        raise ConfigError("a picture drawn again calibrates nothing", where="engine", cure=cure)
    if name is None or config.engine.calibrate is not None:
        return pipeline
    factors, inputs = None, []
    origin: dict[str, str | None] = {"stored": name, "calibration": None}
    if config.engine.calibration is not None:
        factors = weight_calibration.read(pipeline, config.engine.calibration)
        inputs = weight_calibration.foldable(pipeline.denoiser, config.cache)
        origin["calibration"] = sha256(Path(config.engine.calibration).expanduser())
    packing = pack(pipeline.denoiser, name, factors, inputs=inputs)
    tables.line(packing.summary)
    if config.engine.report is not None:
        file = Path(config.engine.report).expanduser()
        write_bytes(file, ("\n".join(packing.table()) + "\n").encode())
        tables.line(f"signal to noise of each layer: {file}")
    return pipeline.with_metadata(**origin)


def draw_pictures(
    pipeline: Any, prompts: list[str], config: Generate
) -> tuple[list[Path], Path | None]:
    """Write the pictures, and calibrate on them if `engine.calibrate` is set."""
    with weight_calibration.recording(pipeline, config) as lines:
        written = pipeline.write(
            prompts,
            config.output or config.run_dir,
            n=config.n,
            seed=config.seed,
            negative_prompt=config.negative_prompt,
            grid=config.grid,
            first=config.first,
        )
    for line in lines:
        tables.line(line)
    return written


def offload_lines(plan: GenerationPlan) -> list[str]:
    """A line for each part whose blocks are offloaded: their number and indices."""
    return [
        f"{part}: {count} of {plan.blocks[part]} blocks in turn: "
        + " ".join(map(str, in_turn(count, plan.blocks[part])))
        for part, count in plan.placement.blocks_in_turn.items()
    ]


def placement_line(plan: GenerationPlan) -> str:
    """One line: the placement, and whether its stages fit the budget."""
    if plan.budget is None:
        return f"placement: {plan.placement}"
    over = [stage for stage in plan.memory.stages if stage.host == plan.host]
    over = [stage for stage in over if stage.total > plan.budget]
    if not over:
        return f"placement: {plan.placement}; every stage fits {size(plan.budget)}"
    needs = ", ".join(f"{stage.name} needs {size(stage.total)}" for stage in over)
    return f"placement: {plan.placement}; does not fit {size(plan.budget)}: {needs}"


def memory_lines(drawing: Any, config: Generate) -> list[str]:
    """Lines on the measured memory of each stage, where the parts are not all resident."""
    if config.engine.chosen == "resident":
        return []
    growth = drawing.sampler.stage.growth
    return [f"stage {name}: memory rose by {size(count)}" for name, count in growth.items()]
