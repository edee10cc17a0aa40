"""The batch that a picture was drawn in, which determines the last bits of its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tinyflux_pl.core.errors import ImageError
from tinyflux_pl.sampling.images import ENCODED

MOST = 10**6  # images at once


def batch_metadata(requests: Sequence[tuple[str, int]], number: int, images: int) -> dict[str, Any]:
    """Metadata of a batch: the prompts encoded together, their indices, and images at once.

    Also the position of the image in the batch. Empty for an image that was alone.
    """
    first = number // ENCODED * ENCODED
    block = requests[first : first + ENCODED]
    if len(block) == 1:
        return {}
    prompts, indices = ([request[k] for request in block] for k in (0, 1))
    at, most = number - first, min(images, len(block))
    return {"together": {"prompts": prompts, "indices": indices, "at": at, "images": most}}


@dataclass(frozen=True)
class BatchRecord:
    """The prompts encoded together, and the number of images drawn at once.

    `at` is the position of the picture's own prompt.
    """

    prompts: list[str]
    indices: list[int]
    at: int
    images: int

    @classmethod
    def of(cls, recorded: Mapping[str, Any], file: str) -> BatchRecord:
        """The batch recorded in the file, else the picture alone; ImageError if it is invalid."""
        entry = recorded.get("together", {})
        prompt, index = recorded["prompt"], recorded["index"]
        alone = {"prompts": [prompt], "indices": [index], "at": 0, "images": 1}
        values = {**alone, **entry} if isinstance(entry, dict) else {}
        prompts, indices = values.get("prompts"), values.get("indices")
        valid = (
            set(values) == set(alone)
            and isinstance(prompts, list)
            and isinstance(indices, list)
            and 1 <= len(prompts) == len(indices) <= ENCODED
            and all(isinstance(p, str) for p in prompts)
            and all(type(i) is int and 0 <= i < 2**63 for i in indices)
            and type(values["at"]) is int
            and 0 <= values["at"] < len(prompts)
            and type(values["images"]) is int
            and 1 <= values["images"] <= MOST
            and prompts[values["at"]] == recorded["prompt"]
            and indices[values["at"]] == recorded["index"]
        )
        if not valid:
            cure = "give a PNG that generate.py has written, unchanged"
            raise ImageError("it does not record its batch", where=file, cure=cure)
        return cls(**values)
