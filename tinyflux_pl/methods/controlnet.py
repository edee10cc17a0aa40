"""A control branch that reads a map, beside a frozen base (ControlNet, Zhang et al. 2023).

Its last layers begin at zero, so that step 0 is the base.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from tinyflux_pl.methods.base_precision import check_format
from tinyflux_pl.methods.method import Method

BRANCH = "control."  # prefix of the branch's names in a denoiser


class ControlNet(Method):
    """The base frozen in its own dtype, and a branch of fp32 (methods.method.Method).

    `depth` is the number of blocks that the branch copies; None: as the family has it. Each family
    builds its own branch: `attach_control` of denoisers.denoiser.
    """

    name = "controlnet"
    needs_base = True
    adds_to_base = True
    exports_branch = True
    reads_weights = "the branch begins as a copy of them"

    def __init__(self, depth: int | None = None, base_precision: str | None = None) -> None:
        self.depth, self.base_precision = depth, check_format(base_precision)

    def prepare(self, denoiser: nn.Module) -> None:
        """Freeze every parameter and attach the branch, which trains."""
        network: Any = denoiser
        network.requires_grad_(False)
        network.attach_control(self.depth)

    def saved(self, denoiser: nn.Module) -> frozenset[str]:
        """The branch alone."""
        return frozenset(name for name in denoiser.state_dict() if name.startswith(BRANCH))

    def config(self) -> dict[str, Any]:
        """The depth."""
        return {"depth": self.depth}
