"""A note on sampler settings that differ from those that weights were distilled for."""

from __future__ import annotations

from tinyflux_pl.inference.pipeline import Pipeline

KEYS = ("steps", "solver", "shift", "toward", "spacing")


def notes(pipeline: Pipeline) -> list[str]:
    """A line if the sampler differs from the one that the weights were distilled for; else none."""
    learnt, used = pipeline.distilled, pipeline.sampler.settings
    if learnt is None:
        return []
    pairs = {f"sampler.{key}": (getattr(learnt, key), getattr(used, key)) for key in KEYS}
    pairs["guidance.scale"] = (learnt.guidance.scale, used.guidance.scale)
    other = [f"{key}={now} instead of {then}" for key, (then, now) in pairs.items() if now != then]
    if not other:
        return []
    return [f"distilled for {learnt.steps} steps without guidance, and drawn at {', '.join(other)}"]
