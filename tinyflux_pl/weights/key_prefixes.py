"""The keys of one network inside a file, without the prefixes of wrappers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TypeVar

from tinyflux_pl.core.errors import CheckpointMismatch

Value = TypeVar("Value")
WRAPPERS = re.compile(
    r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
)
PARALLEL = re.compile(r"^(?:module\.)+")  # of torch's data parallel wrappers
# of network and autoencoder inside a whole checkpoint
CHECKPOINT_PREFIXES = ("model.diffusion_model.", "first_stage_model.")
# of a network inside a whole checkpoint, and as trainers write it alone
NETWORK = (CHECKPOINT_PREFIXES[0], "diffusion_model.", "transformer.", "unet.")
# of an average of the weights that is not in the file
COUNTERS = re.compile(r"^model_ema\.(decay|num_updates)$")
PARTS = re.compile(  # that files which are no whole checkpoint hold side by side
    r"^(diffusion_model|transformer|unet|vae|conditioner|cond_stage_model|text_encoders?(_\d)?)\."
)


def unwrapped(tensors: Mapping[str, Value], where: str) -> dict[str, Value]:
    """Tensors without the names that torch.compile, DDP and FSDP add to keys, and without counters.

    CheckpointMismatch where two keys become one.
    """
    unwrapped_tensors: dict[str, Value] = {}
    for key, value in tensors.items():
        name = PARALLEL.sub("", WRAPPERS.sub("", key))
        if COUNTERS.search(name):
            continue
        if name in unwrapped_tensors:
            cure = "keep one of the two, or give the release's own file"
            raise CheckpointMismatch(
                f"two keys for one weight: {name[:200]}", where=where, cure=cure
            )
        unwrapped_tensors[name] = value
    return unwrapped_tensors


def network_tensors(
    tensors: Mapping[str, Value], prefixes: Sequence[str], where: str
) -> dict[str, Value]:
    """The tensors of one network: its part of a whole checkpoint, else all.

    In a file that is no whole checkpoint, what belongs to no known part stays, to be reported.
    """
    bare = unwrapped(tensors, where)
    prefix = next(
        (prefix for prefix in prefixes if any(key.startswith(prefix) for key in bare)), ""
    )
    if not prefix:
        return bare
    selected = unwrapped(
        {k.removeprefix(prefix): v for k, v in bare.items() if k.startswith(prefix)}, where
    )
    if not any(key.startswith(CHECKPOINT_PREFIXES) for key in bare):
        selected |= {
            k: v for k, v in bare.items() if not k.startswith(prefix) and not PARTS.search(k)
        }
    return selected
