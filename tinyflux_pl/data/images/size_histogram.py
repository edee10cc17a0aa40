"""Histogram of the original sizes of a dataset's pictures, and what fitting them costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

RATIOS = {
    "1:3": 1 / 3,
    "1:2": 0.5,
    "9:16": 9 / 16,
    "2:3": 2 / 3,
    "3:4": 0.75,
    "4:5": 0.8,
    "1:1": 1.0,
}
# width to height
RATIOS |= {":".join(reversed(name.split(":"))): 1 / ratio for name, ratio in RATIOS.items()}


@dataclass
class SizeBucket:
    """Pictures of one aspect ratio and one range of sides.

    `lost` sums the share of each that is cropped.
    """

    count: int = 0
    lost: float = 0.0
    enlarged: int = 0


class OriginalSizes:
    """Counts images by aspect ratio and size.

    Buckets are the nearest of RATIOS, and the octave of the side sqrt(height * width).
    """

    def __init__(self, frame: tuple[int, int], mode: str = "crop") -> None:
        self.frame = frame
        self.mode = mode
        self.buckets: dict[tuple[str, int], SizeBucket] = {}

    def add(self, height: int, width: int, frame: tuple[int, int] | None = None) -> None:
        """Count a picture of this size in pixels; `frame`: its own, where frames differ."""
        frame = frame or self.frame
        ratio = math.log(width / height)
        name = min(RATIOS, key=lambda candidate: abs(math.log(RATIOS[candidate]) - ratio))
        bucket = self.buckets.setdefault((name, int(math.log2(height * width) / 2)), SizeBucket())
        bucket.count += 1
        bucket.lost += lost_share((height, width), frame)
        bucket.enlarged += enlarged((height, width), frame, self.mode)

    def lines(self) -> list[tuple[str, str, int, float, int]]:
        """(aspect ratio, sides, images, mean share lost, enlarged) per bucket, fullest first."""
        ordered = sorted(self.buckets.items(), key=lambda item: (-item[1].count, item[0]))
        return [
            (name, f"{2**octave} to {2 ** (octave + 1) - 1}", b.count, b.lost / b.count, b.enlarged)
            for (name, octave), b in ordered
        ]

    def state(self) -> list[list[float | int | str]]:
        """The histogram as plain data."""
        return [
            [name, octave, b.count, b.lost, b.enlarged]
            for (name, octave), b in sorted(self.buckets.items())
        ]

    def restore(self, state: Sequence[Sequence]) -> None:
        """Restore the histogram from `state`."""
        self.buckets = {
            (str(name), int(octave)): SizeBucket(*rest) for name, octave, *rest in state
        }


def enlarged(size: Sequence[int], frame: tuple[int, int], mode: str) -> bool:
    """True if fitting enlarges a picture: cropped, if one side is smaller.

    Padded, only if both are.
    """
    smaller = [side < edge for side, edge in zip(size, frame, strict=True)]
    return all(smaller) if mode == "pad" else any(smaller)


def lost_share(size: tuple[int, int], frame: tuple[int, int]) -> float:
    """The share of a picture that is cropped to fill the frame; padded, the share of padding."""
    vertical = frame[0] / size[0]
    horizontal = frame[1] / size[1]
    return 1 - min(vertical, horizontal) / max(vertical, horizontal)
