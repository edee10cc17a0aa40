"""Checks of an image size: a multiple of the token size, and close to the training size."""

from __future__ import annotations

from tinyflux_pl.core.errors import ConfigError

MAX_RATIO = 4  # of pixels to those in training, or the inverse


def check_size(height: int, width: int, cell: int) -> None:
    """Raise ConfigError unless both sides are multiples of `cell` pixels."""
    for name, side in (("height", height), ("width", width)):
        if side < cell or side % cell:
            near = max(1, round(side / cell)) * cell
            raise ConfigError(
                f"{side} pixels cannot be cut into cells of {cell}",
                where=name,
                cure=f"use a multiple of {cell}, such as {name}={near}",
            )


def warn_if_far(height: int, width: int, trained: tuple[int, int]) -> None:
    """Warn about a size with MAX_RATIO times more or fewer pixels than in training.

    Sizes are (height, width).
    """
    pixels = height * width
    pixels_trained = trained[0] * trained[1]
    if pixels * MAX_RATIO <= pixels_trained or pixels >= pixels_trained * MAX_RATIO:
        sizes = (
            f"{width} x {height} pixels, by a network that was trained at {trained[1]} x "
            f"{trained[0]}"
        )
        print(
            f"warning: {sizes}: far from its training sizes pictures fall apart or repeat "
            "themselves"
        )
