"""The charts that logged metrics share, and the names of their lines; the rest keep their own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tinyflux_pl.report.curve import Curve


@dataclass(frozen=True)
class Panel:
    """A chart: the pattern of its metrics, whose group 1, if any, is a series' name.

    `unit` is a format of the page's script (plain, percent, bytes), `axis` what the reader sees.
    """

    key: str
    section: str
    title: str
    pattern: str
    axis: str = ""
    unit: str = "plain"
    log: str | None = None
    zero: bool = False
    most: float | None = None


# The first pattern that fits takes a metric; the order within a section is the page's.
PANELS = (
    Panel("loss", "curves", "Loss", r"(train/loss|validation/(?:\w+_)?loss)", "total", log="off"),
    Panel("rate", "curves", "Learning rate", r"train/learning_rate_(\w+)", "by parameter group"),
    Panel(
        "norm",
        "curves",
        "Gradient norm",
        r"train/gradient_norm()",
        "L2, before clipping",
        log="off",
    ),
    Panel(
        "module_norm",
        "curves",
        "Gradient norm by module",
        r"train/gradient_norm_([\w.]+)",
        "L2",
        log="on",
    ),
    Panel("ema", "curves", "Distance of the EMA", r"train/ema_distance()", "share of the norm"),
    Panel("skipped", "curves", "Skipped steps", r"train/skipped_steps()", "in all", zero=True),
    Panel(
        "times",
        "times",
        "Validation loss at each t",
        r"validation/loss_t_([\d.]+)",
        "MSE",
        log="off",
    ),
    Panel(
        "seen_times",
        "times",
        "Loss on training samples at each t",
        r"validation/seen_loss_t_([\d.]+)",
        "MSE",
        log="off",
    ),
    Panel(
        "accuracy",
        "accuracy",
        "Accuracy of the previews",
        r"preview/accuracy_(\w+)",
        "share",
        "percent",
        zero=True,
        most=1.0,
    ),
    Panel(
        "readable",
        "accuracy",
        "Reading the previews",
        r"preview/(readable|fit)",
        "share",
        "percent",
        zero=True,
        most=1.0,
    ),
    Panel("gate", "experts", "Gates", r"train/gate_(\w+)", "share", "percent", zero=True, most=1.0),
    Panel("weight", "experts", "Weight of the loss", r"train/(\w+)_weight", "ramps up", zero=True),
    Panel(
        "unweighted",
        "experts",
        "Distillation loss",
        r"train/(\w+)_unweighted",
        "before its weight",
        log="off",
    ),
    Panel(
        "dropout",
        "experts",
        "Dropout of the teacher",
        r"train/(\w+)_dropout",
        "probability",
        "percent",
        zero=True,
    ),
    Panel("speed", "speed", "Throughput", r"train/images_per_second()", "images/s", zero=True),
    Panel("wait", "speed", "Data wait", r"train/data_wait\w*()", "s a step", zero=True),
    Panel(
        "mfu",
        "speed",
        "Model FLOPs utilisation",
        r"train/mfu()",
        "of the peak",
        "percent",
        zero=True,
    ),
    Panel("memory", "speed", "Peak memory", r"train/\w*memory\w*()", "so far", "bytes", zero=True),
    Panel("terms", "experts", "Terms of the loss", r"train/(\w+)", "weighted", log="on"),
)
LABELS = {
    "train/loss": "training",
    "validation/loss": "validation",
    "validation/seen_loss": "training samples, fixed grid",
}


def panel_of(name: str) -> Panel | None:
    """The panel of a metric; None for one that this project does not log itself."""
    return next((panel for panel in PANELS if re.fullmatch(panel.pattern, name)), None)


def label(panel: Panel, name: str) -> str:
    """The name of a metric within its panel."""
    match = re.fullmatch(panel.pattern, name)
    part = match[1] if match else ""
    return LABELS.get(name, part.replace("_", " ") or panel.title)


def sorted_out(curves: Mapping[str, Curve]) -> tuple[dict[str, dict[str, Curve]], dict[str, Curve]]:
    """Panel key -> label -> curve, and the metrics of no panel."""
    by_panel: dict[str, dict[str, Curve]] = {}
    rest: dict[str, Curve] = {}
    for name, curve in curves.items():
        panel = panel_of(name)
        if panel is None:
            rest[name] = curve
        else:
            by_panel.setdefault(panel.key, {})[label(panel, name)] = curve
    return by_panel, rest


def of_section(section: str) -> Iterable[Panel]:
    """The panels of a section, in the page's order."""
    return (panel for panel in PANELS if panel.section == section)
