"""The workspaces of this project: one run in training, a sweep's comparison, the experts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tinyflux_pl.core import metric_names as names
from tinyflux_pl.dashboards.panels import (
    STEP,
    bands,
    bars,
    lines,
    media,
    parallel_coordinates,
    scatter,
)

LOSS = names.RESULT.of(key="validation_loss")
ACCURACY = names.RESULT.of(key="prompt_accuracy")
HELD_OUT = names.RESULT.of(key="prompt_accuracy_held_out")
PARAMETERS = names.RESULT.of(key="parameters")
SECONDS = names.RESULT.of(key="seconds")
# Keys of the configuration in the comparison of a sweep, unless others are chosen.
COMPARED = ("seed", "steps", "model/hidden_size", "optimizer/lr")


def training(entity: str, project: str, config: Sequence[str], group: str | None) -> Any:
    """Progress of one run: losses, samples, accuracy, optimisation, speed."""
    import wandb_workspaces.reports.v2 as reports

    sections = {
        "Loss": [
            lines("Training and validation", names.LOSS, names.VALIDATION_LOSS, names.SEEN_LOSS),
            lines("Validation by time", names.VALIDATION_AT),
            lines("Training samples by time", names.SEEN_AT),
        ],
        "Samples": [media("Previews", names.GRID), media("Captions and seeds", names.SAMPLES)],
        "Prompt accuracy": [
            lines("By attribute", names.ACCURACY),
            lines("Readable share and mean fit", names.READABLE, names.FIT),
        ],
        "Optimisation": [
            lines("Gradient norm", names.GRADIENT_NORM, log_y=True),
            lines("Gradient norm by module", names.MODULE_GRADIENT_NORM, log_y=True),
            lines("Learning rates", names.LEARNING_RATE),
            lines("Distance of the averaged weights", names.EMA_DISTANCE),
            lines("Skipped steps", names.SKIPPED),
        ],
        "Speed": [
            lines("Images per second", names.IMAGES_PER_SECOND),
            lines("Waiting for data", names.DATA_WAIT),
            lines("Model FLOPs utilisation", names.MFU),
            lines("Peak memory", names.MEMORY),
        ],
        "Configuration": [reports.RunComparer(diff_only="split")],
    }
    return _workspace(entity, project, "Training", sections, (LOSS, ACCURACY, HELD_OUT), group)


def sweep(entity: str, project: str, config: Sequence[str], group: str | None) -> Any:
    """The jobs of a sweep beside each other: results against the configuration, bands by group."""
    import wandb_workspaces.reports.v2 as reports

    results = (LOSS, ACCURACY, HELD_OUT)
    sections = {
        "Comparison": [
            parallel_coordinates("Configuration and results", config, results),
            reports.ParameterImportancePlot(with_respect_to=LOSS),
            reports.RunComparer(diff_only="split"),
        ],
        "Results": [
            bars("Validation loss", [LOSS]),
            bars("Prompt accuracy, seen and held-out combinations", [ACCURACY, HELD_OUT]),
            scatter("Parameters and validation loss", PARAMETERS, LOSS),
            scatter("Seconds and validation loss", SECONDS, LOSS),
        ],
        "Curves of the jobs": [
            lines("Validation loss", names.VALIDATION_LOSS),
            lines("Prompt accuracy", names.ACCURACY),
        ],
        "Mean and standard error of each sweep": [
            bands("Validation loss", names.VALIDATION_LOSS),
            bands("Validation loss on training samples", names.SEEN_LOSS),
        ],
        "Samples at equal steps": [media("Previews", names.GRID)],
    }
    columns = (*results, SECONDS, names.EXIT_CODE.pattern)
    return _workspace(entity, project, "Sweep comparison", sections, columns, group)


def experts(entity: str, project: str, config: Sequence[str], group: str | None) -> Any:
    """Effect of the teachers: distillation losses, their weights, gates, accuracy."""
    sections = {
        "Distillation": [
            lines("Loss before its weight", names.UNWEIGHTED),
            lines("Weight of the loss", names.WEIGHT),
            lines("Probability to go without the teacher", names.DROPOUT),
            lines("Gates of the ports", names.GATE),
        ],
        "Effect": [
            lines("Validation loss", names.VALIDATION_LOSS),
            lines("Prompt accuracy", names.ACCURACY),
            bars("Prompt accuracy at the end", [ACCURACY, HELD_OUT]),
        ],
        "Samples": [media("Previews", names.GRID)],
    }
    return _workspace(entity, project, "Experts", sections, (LOSS, ACCURACY, HELD_OUT), group)


WORKSPACES: dict[str, Callable[[str, str, Sequence[str], str | None], Any]] = {
    "training": training,
    "sweep": sweep,
    "experts": experts,
}


def _workspace(
    entity: str,
    project: str,
    title: str,
    sections: dict[str, list[Any]],
    results: Sequence[str],
    group: str | None,
) -> Any:
    """A workspace with all sections open; of the runs of one group, if it is given."""
    import wandb_workspaces.workspaces as workspaces
    from wandb_workspaces import expr

    return workspaces.Workspace(
        entity=entity,
        project=project,
        name=f"TinyFlux: {title}",
        sections=[
            workspaces.Section(name=name, panels=panels, is_open=True)
            for name, panels in sections.items()
        ],
        settings=workspaces.WorkspaceSettings(x_axis=STEP, max_runs=30),
        runset_settings=workspaces.RunsetSettings(
            filters=[expr.Metric("Group") == group] if group else [],
            pinned_columns=[
                "run:displayName",
                "run:state",
                *(f"summary:{name}" for name in results),
            ],
        ),
    )
