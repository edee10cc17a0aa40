"""What drawing from a checkpoint needs in memory, from its description and the header of its weights alone."""

from __future__ import annotations

from typing import Any

from tinyflux_pl.app.inference_memory import GenerationPlan, generation_plan, plan_of


def planned(config: dict[str, Any]) -> GenerationPlan:
    """The plan of `checkpoint`, or without one of `model`."""
    from tinyflux_pl.inference.pipeline import open_checkpoint

    if config["checkpoint"] is None:
        return generation_plan(config)
    return checkpoint_plan(open_checkpoint(config["checkpoint"]), config)


def checkpoint_plan(checkpoint: Any, config: dict[str, Any], images: int | None = None) -> GenerationPlan:
    """The parts that a checkpoint describes, in the size and with the guidance asked for, else in its own.

    Raises as described_parts.parts does, ConfigError for a size that the network cannot draw.
    """
    from tinyflux_pl.inference import described_parts
    from tinyflux_pl.inference.picture_size import check_size

    made = described_parts.parts(checkpoint, outline=True)
    net: Any = made.denoiser
    size = (config["height"] or made.image_size[0], config["width"] or made.image_size[1])
    check_size(*size, made.codec.latent_spec.downsample * net.patch_size)
    net.require_size(*size)
    asked = (config["guidance"] or {}).get("scale")
    guidance = {"scale": made.settings.guidance.scale if asked is None else asked}
    with described_parts.explained(str(checkpoint.path)):
        return plan_of(net, made.codec, made.text, size, {**config, "guidance": guidance}, images)
