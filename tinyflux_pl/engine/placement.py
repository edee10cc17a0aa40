"""Placement of a pipeline's parts in each stage, and the device memory that it needs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.engine.block_sizes import BlockSizes
from tinyflux_pl.engine.memory_plan import GIB, MemoryPlan, Stage

UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": GIB, "kB": 10**3, "MB": 10**6, "GB": 10**9}


@dataclass(frozen=True)
class Placement:
    """Where the parts of a pipeline are during sampling.

    `denoiser` is resident (on the device in every stage), moved (in its own) or blocks (in its own,
    `in_turn` of its blocks one after another); encoders and codec are `freed` after their stage;
    `text` runs on the device or on the host, and `text_in_turn` are (encoder, blocks in turn).
    """

    name: str
    denoiser: str = "resident"
    freed: bool = False
    text: str = "device"
    in_turn: int = 0
    text_in_turn: tuple[tuple[str, int], ...] = ()

    def __str__(self) -> str:
        return self.name if self.text == "device" else f"{self.name}, text encoders on the host"

    @property
    def blocks_in_turn(self) -> dict[str, int]:
        """The number of blocks in turn, by part, for parts that have any."""
        encoders = {f"text: {name}": count for name, count in self.text_in_turn}
        return encoders | ({"denoiser": self.in_turn} if self.in_turn else {})


RESIDENT = Placement("resident")
SEQUENTIAL = Placement("sequential", "moved", freed=True)
OFFLOAD = Placement("offload", "blocks", freed=True)
NAMES = ("resident", "sequential", "offload", "auto")


@dataclass(frozen=True)
class Needs:
    """Bytes of the parts' weights, by blocks, and of the activations of each stage.

    `text` has an entry for each encoder, of which `one_encoder` holds one at a time. `context` is
    what CUDA takes of the device beside them, in every stage.
    """

    denoiser: BlockSizes
    text: Mapping[str, BlockSizes]
    one_encoder: bool
    codec: int
    drawing: int
    decoding: int
    encoding: int = 0
    context: int = 0


def planned(placement: Placement, needs: Needs, *, host: bool) -> MemoryPlan:
    """The stages text, denoise and decode under a placement.

    On a CPU nothing can be moved away, and `host` is True: the denoiser stays, and encoders and
    codec are freed.
    """
    turns = dict(placement.text_in_turn)
    encoders = {
        f"text: {name}{', by blocks' if name in turns else ''}": sizes.with_in_turn(
            turns.get(name, 0)
        )
        for name, sizes in needs.text.items()
    }
    if needs.one_encoder:
        encoders = dict(sorted(encoders.items(), key=lambda row: row[1])[-1:])
    weights = needs.denoiser.total
    stays = {"denoiser": weights} if host or placement.denoiser == "resident" else {}
    drawing = {"denoiser": weights}
    if placement.in_turn and not host:
        drawing = {"denoiser, by blocks": needs.denoiser.with_in_turn(placement.in_turn)}
    resident = {} if placement.freed or needs.one_encoder else encoders
    on_host = placement.text == "host" and not host
    rows = encoders if on_host else {**stays, **encoders}
    if needs.encoding:
        rows = {**rows, "activations": needs.encoding}
    text = Stage("text", rows, host or on_host)
    codec = {"codec": needs.codec}
    plan = MemoryPlan(
        (
            text,
            Stage("denoise", {**drawing, **resident, "activations": needs.drawing}, host),
            Stage("decode", {**stays, **resident, **codec, "activations": needs.decoding}, host),
        )
    )
    return plan.reserving(needs.context)


def chosen(name: str, needs: Needs, budget: int | None, *, host: bool) -> Placement:
    """The placement by name; for auto the first that fits the budget, else the smallest.

    With a budget as few blocks come in turn as it allows; offload without one has all of them in
    turn. Text encoders run by blocks where they do not fit, and on the host where those do not.
    """
    if name not in NAMES:
        cure = f"choose {', '.join(NAMES)}"
        raise ConfigError(f"no placement {name!r}", where="engine.placement", cure=cure)
    if host and name == "offload":
        what = "a CPU has no other memory to offload blocks to"
        raise ConfigError(what, where="engine.placement", cure="engine.placement=sequential")
    if host:
        return RESIDENT if name == "resident" else SEQUENTIAL
    if name == "resident" or (name == "auto" and _fits(RESIDENT, needs, budget)):
        return RESIDENT
    placement = OFFLOAD if name == "offload" else SEQUENTIAL
    if budget is not None:
        placement = replace(placement, **_text_within(needs, budget))
    most = needs.denoiser.most_in_turn
    if budget is None:
        return replace(placement, in_turn=most) if name == "offload" else placement
    fewest = needs.denoiser.fewest_in_turn(budget - needs.drawing - needs.context)
    if name == "sequential" or fewest == 0 or not most:
        return placement
    return replace(OFFLOAD, **_text(placement), in_turn=most if fewest is None else fewest)


def _text(placement: Placement) -> dict[str, object]:
    return {"text": placement.text, "text_in_turn": placement.text_in_turn}


def _text_within(needs: Needs, budget: int) -> dict[str, object]:
    """Encoders by blocks, the largest first, until they fit; on the host if they never do."""
    counts: dict[str, int] = {}
    budget -= needs.encoding + needs.context
    sizes = {name: encoder.total for name, encoder in needs.text.items()}
    for name in sorted(sizes, key=lambda name: -sizes[name]):
        if _taken(sizes, needs.one_encoder) <= budget:
            break
        encoder = needs.text[name]
        rest = 0 if needs.one_encoder else sum(sizes.values()) - sizes[name]
        fewest = encoder.fewest_in_turn(budget - rest)
        counts[name] = encoder.most_in_turn if fewest is None else fewest
        sizes[name] = encoder.with_in_turn(counts[name])
    if _taken(sizes, needs.one_encoder) > budget:
        return {"text": "host", "text_in_turn": ()}
    in_turn = tuple((name, count) for name, count in counts.items() if count)
    return {"text": "device", "text_in_turn": in_turn}


def _taken(sizes: Mapping[str, int], one_encoder: bool) -> int:
    return max(sizes.values(), default=0) if one_encoder else sum(sizes.values())


def _fits(placement: Placement, needs: Needs, budget: int | None) -> bool:
    return budget is None or fits(planned(placement, needs, host=False), budget)


def fits(plan: MemoryPlan, budget: int) -> bool:
    """True if every stage on the device stays within the budget."""
    return all(stage.total <= budget for stage in plan.stages if not stage.host)


def parsed_bytes(text: str) -> int:
    """Bytes of a budget such as 12GiB; ConfigError without a unit."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]iB|[kMG]B)\s*", text)
    if match is None or float(match[1]) <= 0:
        cure = "a number and its unit: engine.budget=12GiB"
        raise ConfigError(f"budget is {text!r}", where="engine.budget", cure=cure)
    return int(float(match[1]) * UNITS[match[2]])
