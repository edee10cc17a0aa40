"""The size of a picture to draw: whole tokens, and about the size that the network was trained at."""

from __future__ import annotations

from tinyflux_pl.core.errors import ConfigError

FAR = 4  # times more, or fewer, pixels than in training


def check_size(height: int, width: int, cell: int) -> None:
    """Raise ConfigError unless both sides are whole tokens of `cell` pixels."""
    for name, side in (("height", height), ("width", width)):
        if side < cell or side % cell:
            near = max(1, round(side / cell)) * cell
            what = f"{side} pixels cannot be cut into cells of {cell}"
            raise ConfigError(what, where=name, cure=f"use a multiple of {cell}, such as {name}={near}")


def warn_if_far(height: int, width: int, trained: tuple[int, int]) -> None:
    """Print a warning where a picture has FAR times more, or fewer, pixels than those (height, width) of training."""
    pixels, usual = height * width, trained[0] * trained[1]
    if pixels * FAR <= usual or pixels >= usual * FAR:
        told = f"{width} x {height} pixels, by a network that was trained at {trained[1]} x {trained[0]}"
        print(f"warning: {told}: far from its training sizes pictures fall apart or repeat themselves")
