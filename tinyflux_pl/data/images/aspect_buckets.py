"""Aspect-ratio buckets: frames of about one area, and the frame that suits a picture best."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from tinyflux_pl.core.errors import ConfigError

Frame = tuple[int, int]  # (height, width) in pixels
WHERE = "data.buckets"


@dataclass(frozen=True)
class AspectBuckets:
    """Frames of at most the area of `size` whose sides are multiples of `step`.

    Sides are from `min_side` to `max_side`, areas as near to that of `size` as the step allows.
    A picture goes to the frame whose width / height is nearest to its own in the logarithm
    (NovelAI 2022, "aspect ratio bucketing"), is scaled to cover it and cropped to it. Frames with
    fewer than `least` pictures are closed, and their pictures go to the nearest open one.
    None as a side: half of the shorter side of `size`, twice the longer one.
    """

    size: Frame
    step: int = 64
    min_side: int | None = None
    max_side: int | None = None
    least: int = 1

    def __post_init__(self) -> None:
        for name, value in (("step", self.step), ("least", self.least)):
            if value < 1:
                raise ConfigError(f"{name} is {value}", where=f"{WHERE}.{name}", cure="at least 1")
        if not self.frames():
            low, high = self._limits()
            what = f"no frame of {self.size[0]} x {self.size[1]} pixels has sides from {low} to "
            what += f"{high} in steps of {self.step}"
            cure = "a smaller step, or wider limits: data.buckets.min_side, max_side"
            raise ConfigError(what, where=WHERE, cure=cure)

    @classmethod
    def of(cls, size: Frame, keys: Mapping[str, Any] | None) -> AspectBuckets | None:
        """From the node data.buckets; None where it is not enabled."""
        option_names = {field.name for field in fields(cls)} - {"size"}
        options = dict(keys or {})
        enabled = options.pop("enabled", False)
        for name in options:
            if name not in option_names:
                cure = f"it takes enabled, {', '.join(sorted(option_names))}"
                raise ConfigError(f"nothing reads {name}", where=f"{WHERE}.{name}", cure=cure)
        return cls(size, **options) if enabled else None

    def frames(self) -> list[Frame]:
        """All frames by increasing height / width; of each width only the highest."""
        low, high = self._limits()
        area = self.size[0] * self.size[1]
        sides = range(-(-low // self.step) * self.step, high + 1, self.step)
        frames: set[Frame] = set()
        for side in sides:
            other = min(area // side, high) // self.step * self.step
            if other >= max(low, self.step):
                frames |= {(side, other), (other, side)}
        return sorted(frames, key=lambda frame: (math.log(frame[0] / frame[1]), frame))

    def assign(self, sizes: Iterable[Frame]) -> list[Frame]:
        """The frame of each picture of size (height, width)."""
        sizes, frames = list(sizes), self.frames()
        chosen = [nearest(size, frames) for size in sizes]
        while len(frames) > 1:
            counts = {frame: chosen.count(frame) for frame in frames}
            used = [frame for frame in frames if counts[frame]]
            poor = [frame for frame in used if counts[frame] < self.least]
            if not poor or len(used) == 1:
                break
            closed = min(poor, key=lambda frame: (counts[frame], frame))
            frames = [frame for frame in used if frame != closed]
            chosen = [
                nearest(size, frames) if frame == closed else frame
                for size, frame in zip(sizes, chosen, strict=True)
            ]
        return chosen

    def _limits(self) -> tuple[int, int]:
        low = min(self.size) // 2 if self.min_side is None else self.min_side
        high = 2 * max(self.size) if self.max_side is None else self.max_side
        return low, high


def nearest(size: Frame, frames: Sequence[Frame]) -> Frame:
    """The frame whose aspect ratio is nearest to that of `size` in the logarithm.

    Of two as near, the one of more pixels, then the wider one.
    """
    ratio = math.log(size[1] / size[0])

    def distance(frame: Frame) -> tuple[float, int, int]:
        height, width = frame
        return (round(abs(math.log(width / height) - ratio), 9), -height * width, -width)

    return min(frames, key=distance)
