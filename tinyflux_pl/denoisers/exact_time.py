"""fp32 times for networks of diffusers, which would round them to the activations' dtype."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn


class ExactTime:
    """Pass the scalars of a call to an embedding of diffusers in fp32, without rounding.

    FLUX's transformers compute `timestep.to(hidden_states.dtype) * 1000`: in bf16, with 8 bits of
    mantissa, neighbouring times near 1 become one. The embedding itself takes its sinusoids in
    fp32, so it is enough to replace its first arguments (time, then guidance where there is one) on
    their way in. `in_turn` is for FLUX.2 and FLUX.3, where the module that takes the sinusoids is
    called once for each scalar.
    """

    def __init__(self, embedding: nn.Module, scale: float = 1000.0, in_turn: bool = False) -> None:
        self.scale, self.in_turn = scale, in_turn
        self._scalars: tuple[Tensor | None, ...] = ()
        embedding.register_forward_pre_hook(self._replace)

    def set(self, *scalars: Float[Tensor, " b"] | None) -> None:
        """Set the unscaled scalars of the next call, in the order of the embedding's arguments.

        None stands for an argument that is not passed.
        """
        self._scalars = scalars

    def _replace(self, _: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        if self.in_turn:
            scalar, *rest = self._scalars
            self._scalars = tuple(rest)
            return (args[0] if scalar is None else scalar.float() * self.scale,)
        exact = [None if s is None else s.float() * self.scale for s in self._scalars]
        return (
            *(e if e is not None else g for e, g in zip(exact, args[: len(exact)], strict=True)),
            *args[len(exact) :],
        )
