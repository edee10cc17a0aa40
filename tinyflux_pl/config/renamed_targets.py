"""Targets that have moved: configurations and checkpoints with old names still open."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")

_TASKS = "tinyflux_pl.data.tasks."
_SEQUENCES = "tinyflux_pl.data.sequences."
RENAMED = {
    "tinyflux_pl.denoisers.tinyflux.build_published": (
        "tinyflux_pl.denoisers.tinyflux_published.build_published"
    ),
    "tinyflux_pl.data.shapes.Shapes": _TASKS + "shapes.records.Shapes",
    "tinyflux_pl.data.scenes.Scenes": _TASKS + "scenes.records.Scenes",
    "tinyflux_pl.data.digits.Digits": _TASKS + "digits.records.Digits",
    "tinyflux_pl.data.digit_halves.DigitHalves": _TASKS + "digits.halves.DigitHalves",
    "tinyflux_pl.data.bar_charts.BarCharts": _TASKS + "bar_charts.BarCharts",
    "tinyflux_pl.data.paired_images.PairedImages": (
        "tinyflux_pl.data.records.image_pairs.PairedImages"
    ),
    "tinyflux_pl.data.sequences.Sequences": _SEQUENCES + "files.Sequences",
    "tinyflux_pl.data.pair_codecs.identity_for": _SEQUENCES + "codecs.identity_for",
    "tinyflux_pl.data.pair_codecs.given_for": _SEQUENCES + "codecs.conditions_for",
    "tinyflux_pl.data.sequences.codecs.given_for": _SEQUENCES + "codecs.conditions_for",
}


def current_target(name: T) -> T | str:
    """The present name of a target; anything else unchanged."""
    return RENAMED.get(name, name) if isinstance(name, str) else name
