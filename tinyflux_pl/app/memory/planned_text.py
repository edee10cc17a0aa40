"""Activations of text encoders at the length and number of a request's prompts."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from tinyflux_pl.app.memory.planned_step import is_guided
from tinyflux_pl.config.schema import Generate


def encoding(text: Any, networks: Mapping[str, Any], config: Generate) -> int:
    """Peak bytes of encoding what ImageSampler encodes at once: the prompts, and the negative one.

    `networks` are the encoder's skeletons. Prompts count as texts of the full length. 0 for an
    encoder without networks.
    """
    from tinyflux_pl.engine.activations import PaddedMasks, activations

    outlined = text.outlined(networks) if networks else None
    if outlined is None:
        return 0
    prompts = ["a" * text.text_spec.length] * distinct(config)

    def work() -> Any:
        alone = is_guided(config) and not _has_negative(config)
        with PaddedMasks():
            return (outlined.null() if alone else None, outlined.encode(prompts))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the long prompts are cut
        return activations(work, *networks.values())


def distinct(config: Generate) -> int:
    """Number of texts encoded together: distinct prompts, and the negative one if it is read."""
    from tinyflux_pl.inference.prompts import read_prompts
    from tinyflux_pl.sampling.images import ENCODED

    prompts = {""}
    if config.prompt is not None or config.prompt_file is not None:
        prompts = set(read_prompts(config.prompt, config.prompt_file))
    negative = is_guided(config) and _has_negative(config)
    return min(len(prompts), ENCODED) + (1 if negative else 0)


def _has_negative(config: Generate) -> bool:
    return (config.negative_prompt or config.guidance.get("negative")) is not None
