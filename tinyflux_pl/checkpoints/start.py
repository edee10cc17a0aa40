"""Initialise a new run from weights, with a report of all differences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tinyflux_pl.checkpoints.directory import plain_key, plain_keys
from tinyflux_pl.core.errors import CheckpointMismatch
from tinyflux_pl.weights.key_diff import differences, listed, shapes_of

CURE = "use the model= and experts= of the run that wrote these weights"


@dataclass(frozen=True)
class StartReport:
    """Names of tensors by how initialisation treated them.

    Copied, missing in the weights, only in the weights, and widened by input columns of zeros.
    """

    taken: list[str]
    new: list[str]
    dropped: list[str]
    widened: list[str]

    def lines(self, where: str) -> list[str]:
        """One line for the copied tensors, and one for each kind of difference."""
        kinds = {
            "new, as initialised": self.new,
            "dropped": self.dropped,
            "widened by columns of zeros": self.widened,
        }
        lines = [f"init: {len(self.taken):,} tensors of {where}"]
        lines += [
            f"init: {len(names):,} {kind}: {listed(dict.fromkeys(names, ''))}"
            for kind, names in kinds.items()
            if names
        ]
        return lines


@torch.no_grad()
def start_from(
    module: nn.Module, tensors: Mapping[str, Tensor], where: str, *, complete: bool = False
) -> StartReport:
    """Copy weights into the module by name and shape.

    A matrix with more input columns than the weights have takes theirs first, then zeros.
    CheckpointMismatch for any other shape, if nothing fits, and with `complete` if anything of the
    module is not in the weights.
    """
    expected = {plain_key(name): tensor for name, tensor in module.state_dict().items()}
    source = plain_keys(tensors)
    common = [name for name in expected if name in source]
    widened = [n for n in common if not complete and _is_widened(expected[n], source[n])]
    unfit = [n for n in common if n not in widened and expected[n].shape != source[n].shape]
    new = [name for name in expected if name not in source]
    if unfit or not common or (complete and new):
        compared = {n: source[n] for n in source if n in expected} if common else source
        what = differences(shapes_of(expected), shapes_of(compared))
        raise CheckpointMismatch(f"these weights do not fit; {what}", where=where, cure=CURE)
    for name in common:
        if name in widened:
            expected[name].zero_()
            expected[name][:, : source[name].shape[1]].copy_(source[name])
        else:
            expected[name].copy_(source[name])
    dropped = [name for name in source if name not in expected]
    return StartReport([n for n in common if n not in widened], new, dropped, widened)


def _is_widened(wide: Tensor, narrow: Tensor) -> bool:
    same_rows = wide.ndim == narrow.ndim == 2 and len(wide) == len(narrow)
    return same_rows and wide.shape[1] > narrow.shape[1]
