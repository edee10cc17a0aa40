"""Ports: inputs of a network that an expert feeds, each with the head that predicts it at sampling.

A network has any number of ports under names that its configuration gives. The registry PORT_KINDS
says how a kind of port enters. The published network's two experts keep the modules and the
parameter names of their own (nets.expert_heads).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Num
from torch import Tensor, nn

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.nets.expert_heads import choose, map_at_tokens


@dataclass(frozen=True)
class PortSpec:
    """A port as plain data.

    `width`: features of a vector, or cells along a side of a map. `hidden` and `dropout` are of the
    head, an MLP of time and pooled text.
    """

    kind: str
    width: int
    hidden: int = 256
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.kind not in PORT_KINDS:
            choices = ", ".join(PORT_KINDS)
            raise ConfigError(
                f"no port kind {self.kind!r}", where="ports", cure=f"choose {choices}"
            )
        if self.width < 1 or self.hidden < 1:
            sizes = f"width {self.width}, hidden {self.hidden}"
            raise ConfigError(f"a port of {sizes}", where="ports", cure="both at least 1")
        if not 0 <= self.dropout < 1:
            raise ConfigError(
                f"dropout is {self.dropout}", where="ports", cure="a probability below 1"
            )


class PortOutput(NamedTuple):
    """`prediction` is the head's, compared with the teacher; the others enter the network.

    `vector` (B, D) is added to the conditioning vector, `tokens` (B, N, D) to the image tokens.
    """

    prediction: Tensor
    vector: Tensor | None = None
    tokens: Tensor | None = None


class VectorPort(nn.Module):
    """Features (B, E) -> a gated term (B, D) of the conditioning vector."""

    def __init__(self, spec: PortSpec, inputs: int, out: int) -> None:
        super().__init__()
        self.predictor = _head(spec, inputs, spec.width)
        self.output_proj = nn.Sequential(nn.LayerNorm(spec.width), nn.Linear(spec.width, out))
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(
        self,
        head_input: Float[Tensor, "b i"],
        img_ids: Num[Tensor, "*bi n 3"],
        teacher: Float[Tensor, "b e"] | None = None,
        mask: Bool[Tensor, " b"] | None = None,
    ) -> PortOutput:
        """The teacher's features where `mask` is True (None: everywhere), else the head's."""
        predicted = self.predictor(head_input)
        features = choose(teacher, predicted, mask)
        return PortOutput(predicted, vector=torch.sigmoid(self.gate) * self.output_proj(features))

    def initialise(self) -> None:
        """Keep the network's default initialisation."""


class MapPort(nn.Module):
    """A map (B, S, S), read at each image token -> a term (B, N, D) of the image tokens.

    The projection is zero at first, so that a new port does not change the network's answer.
    """

    def __init__(self, spec: PortSpec, inputs: int, out: int) -> None:
        super().__init__()
        self.size = spec.width
        self.predictor = _head(spec, inputs, spec.width**2)
        self.output_proj = nn.Linear(1, out, bias=False)

    def forward(
        self,
        head_input: Float[Tensor, "b i"],
        img_ids: Num[Tensor, "*bi n 3"],
        teacher: Float[Tensor, "b s1 s2"] | None = None,
        mask: Bool[Tensor, " b"] | None = None,
    ) -> PortOutput:
        """The teacher's map where `mask` is True (None: everywhere), else the head's."""
        predicted = self.predictor(head_input).unflatten(1, (self.size, self.size))
        at_tokens = map_at_tokens(choose(teacher, predicted, mask), img_ids)
        tokens = self.output_proj(at_tokens[..., None].to(self.output_proj.weight.dtype))
        return PortOutput(predicted, tokens=tokens)

    def initialise(self) -> None:
        nn.init.zeros_(self.output_proj.weight)


PORT_KINDS: dict[str, type[VectorPort] | type[MapPort]] = {"vector": VectorPort, "map": MapPort}


class ExpertPorts(nn.ModuleDict):
    """The ports of one network by name; the sum of their outputs enters it."""

    def __init__(self, specs: Mapping[str, Mapping[str, Any]], inputs: int, out: int) -> None:
        parsed = {name: PortSpec(**spec) for name, spec in specs.items()}
        super().__init__({n: PORT_KINDS[s.kind](s, inputs, out) for n, s in parsed.items()})

    def initialise(self) -> None:
        """Set what must differ from the network's default initialisation."""
        for port in self.values():
            port.initialise()

    def gates(self) -> dict[str, Tensor]:
        """Port -> its gate in (0, 1), of the ports that have one."""
        return {
            name: torch.sigmoid(port.gate)
            for name, port in self.items()
            if isinstance(port, VectorPort)
        }

    def forward(
        self,
        time: Float[Tensor, "b d"],
        pooled: Float[Tensor, "b p"],
        img_ids: Num[Tensor, "*bi n 3"],
        teachers: Mapping[str, Tensor],
        masks: Mapping[str, Tensor],
    ) -> tuple[Tensor | None, Tensor | None, dict[str, Tensor]]:
        """(term of the vector (B, D), term of the image tokens (B, N, D), predictions by name)."""
        head_input = torch.cat((time, pooled), -1)
        outputs = {
            name: port(head_input, img_ids, teachers.get(name), masks.get(name))
            for name, port in self.items()
        }
        vectors = [output.vector for output in outputs.values() if output.vector is not None]
        tokens = [output.tokens for output in outputs.values() if output.tokens is not None]
        predictions = {name: output.prediction for name, output in outputs.items()}
        return _sum(vectors), _sum(tokens), predictions


def _head(spec: PortSpec, inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, spec.hidden),
        nn.SiLU(),
        nn.Linear(spec.hidden, spec.hidden),
        nn.SiLU(),
        nn.Dropout(spec.dropout),
        nn.Linear(spec.hidden, outputs),
    )


def _sum(terms: list[Tensor]) -> Tensor | None:
    return torch.stack(terms).sum(0) if terms else None
