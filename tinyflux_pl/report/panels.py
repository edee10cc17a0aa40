"""The charts of the catalogued metrics, and the names of their lines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tinyflux_pl.core import metric_names as names
from tinyflux_pl.core.metric_names import MetricName
from tinyflux_pl.report.curve import Curve


@dataclass(frozen=True)
class Panel:
    """A chart and the entries of the catalogue that it draws.

    `unit` is a format of the page's script (plain, percent, bytes), `axis` what the reader sees.
    """

    key: str
    section: str
    title: str
    entries: tuple[MetricName, ...]
    axis: str = ""
    unit: str = "plain"
    log: str | None = None
    zero: bool = False
    most: float | None = None


def _shares(key: str, section: str, title: str, *entries: MetricName, axis: str = "share") -> Panel:
    """A chart from 0 to 100 %."""
    return Panel(key, section, title, entries, axis, "percent", zero=True, most=1.0)


LOSSES = (names.LOSS, names.VALIDATION_LOSS, names.SEEN_LOSS)
# the order within a section is the page's
PANELS = (
    Panel("loss", "curves", "Loss", LOSSES, "total", log="off"),
    Panel("rate", "curves", "Learning rate", (names.LEARNING_RATE,), "by parameter group"),
    Panel(
        "norm", "curves", "Gradient norm", (names.GRADIENT_NORM,), "L2, before clipping", log="off"
    ),
    Panel(
        "module_norm",
        "curves",
        "Gradient norm by module",
        (names.MODULE_GRADIENT_NORM,),
        "L2",
        log="on",
    ),
    Panel("ema", "curves", "Distance of the EMA", (names.EMA_DISTANCE,), "share of the norm"),
    Panel("skipped", "curves", "Skipped steps", (names.SKIPPED,), "in all", zero=True),
    Panel("times", "times", "Validation loss at each t", (names.VALIDATION_AT,), "MSE", log="off"),
    Panel(
        "seen_times",
        "times",
        "Loss on training samples at each t",
        (names.SEEN_AT,),
        "MSE",
        log="off",
    ),
    _shares("accuracy", "accuracy", "Accuracy of the previews", names.ACCURACY),
    _shares("readable", "accuracy", "Reading the previews", names.READABLE, names.FIT),
    _shares(
        "velocity",
        "experts",
        "Teachers' velocities in the target",
        names.VELOCITY_SHARE,
        names.VELOCITY_WEIGHT,
        axis="share of samples, and w",
    ),
    Panel(
        "velocity_open",
        "experts",
        "Times at which a teacher is used",
        (names.VELOCITY_OPEN,),
        "1 used, 0 closed",
        zero=True,
        most=1.0,
    ),
    _shares("gate", "experts", "Gates", names.GATE),
    Panel("weight", "experts", "Weight of the loss", (names.WEIGHT,), "ramps up", zero=True),
    Panel(
        "unweighted",
        "experts",
        "Distillation loss",
        (names.UNWEIGHTED,),
        "before its weight",
        log="off",
    ),
    _shares("dropout", "experts", "Dropout of the teacher", names.DROPOUT, axis="probability"),
    Panel("speed", "speed", "Throughput", (names.IMAGES_PER_SECOND,), "images/s", zero=True),
    Panel("wait", "speed", "Data wait", (names.DATA_WAIT,), "s a step", zero=True),
    _shares("mfu", "speed", "Model FLOPs utilisation", names.MFU, axis="of the peak"),
    Panel("memory", "speed", "Peak memory", (names.MEMORY,), "so far", "bytes", zero=True),
    Panel("terms", "experts", "Terms of the loss", (names.TERM,), "weighted", log="on"),
    Panel("l1", "curves", "Error of the pictures", (names.L1, names.SEEN_L1), "L1", log="off"),
    Panel("psnr", "curves", "PSNR of the pictures", (names.PSNR, names.SEEN_PSNR), "dB"),
)
LABELS = {
    names.LOSS: "training",
    names.VALIDATION_LOSS: "validation",
    names.SEEN_LOSS: "training samples, fixed grid",
    **dict.fromkeys((names.L1, names.PSNR), "validation"),
    **dict.fromkeys((names.SEEN_L1, names.SEEN_PSNR), "training samples"),
    names.READABLE: "readable",
    names.VELOCITY_SHARE: "share of samples",
    names.VELOCITY_WEIGHT: "w",
    names.FIT: "fit",
}


def panel_of(name: str) -> Panel | None:
    """The panel of a metric; None for one that this project does not log itself."""
    entry = names.find(name)
    return next((panel for panel in PANELS if entry in panel.entries), None)


def label(panel: Panel, name: str) -> str:
    """The name of a metric within its panel: that of its line, or the parts of its name."""
    entry = next((entry for entry in panel.entries if entry.matches(name)), None)
    if entry is None:
        return name
    parts = " ".join((entry.parts(name) or {}).values())
    return LABELS.get(entry, parts.replace("_", " ") or panel.title)


def group_by_panel(
    curves: Mapping[str, Curve],
) -> tuple[dict[str, dict[str, Curve]], dict[str, Curve]]:
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
