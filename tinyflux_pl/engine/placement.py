"""Where the parts of a pipeline lie in each stage, and the memory that takes on the device."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.engine.memory_plan import GIB, MemoryPlan, Stage

UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": GIB, "kB": 10**3, "MB": 10**6, "GB": 10**9}
AHEAD = 2  # blocks on the device at once: the one that runs, and the next


@dataclass(frozen=True)
class Placement:
    """`denoiser` resident (on the device in every stage), moved (in its own) or blocks (one block
    after another); encoders and codec are `freed` after their stage; `text` runs on the device or
    on the host.
    """

    name: str
    denoiser: str = "resident"
    freed: bool = False
    text: str = "device"

    def __str__(self) -> str:
        return self.name if self.text == "device" else f"{self.name}, text encoders on the host"


RESIDENT = Placement("resident")
SEQUENTIAL = Placement("sequential", "moved", freed=True)
OFFLOAD = Placement("offload", "blocks", freed=True)
ON_HOST = (
    Placement("sequential", "moved", freed=True, text="host"),
    Placement("offload", "blocks", freed=True, text="host"),
)
CHOICES = (RESIDENT, SEQUENTIAL, ON_HOST[0], OFFLOAD, ON_HOST[1])  # the faster ones first
NAMES = ("resident", "sequential", "offload", "auto")


@dataclass(frozen=True)
class Needs:
    """Bytes of the parts' weights and of the activations of two stages.

    `blocks` is what the denoiser takes while its blocks come and go; `text` has an entry for each
    encoder, of which `text_in_turn` holds one at a time.
    """

    denoiser: int
    blocks: int
    text: Mapping[str, int]
    text_in_turn: bool
    codec: int
    drawing: int
    decoding: int


def planned(placement: Placement, needs: Needs, *, host: bool) -> MemoryPlan:
    """The stages text, denoise and decode under a placement.

    On a CPU nothing can be moved away, and `host` is True: the denoiser stays, and encoders and
    codec are freed.
    """
    encoders = {f"text: {name}": count for name, count in needs.text.items()}
    if needs.text_in_turn:
        encoders = dict(sorted(encoders.items(), key=lambda row: row[1])[-1:])
    stays = {"denoiser": needs.denoiser} if host or placement.denoiser == "resident" else {}
    drawing = {"denoiser": needs.denoiser}
    if placement.denoiser == "blocks" and not host:
        drawing = {"denoiser, by blocks": needs.blocks}
    kept = {} if placement.freed or needs.text_in_turn else encoders
    on_host = placement.text == "host" and not host
    text = Stage("text", encoders if on_host else {**stays, **encoders}, host or on_host)
    codec = {"codec": needs.codec}
    return MemoryPlan(
        (
            text,
            Stage("denoise", {**drawing, **kept, "activations": needs.drawing}, host),
            Stage("decode", {**stays, **kept, **codec, "activations": needs.decoding}, host),
        )
    )


def chosen(name: str, needs: Needs, budget: int | None, *, host: bool) -> Placement:
    """The placement of that name; of auto, and where text may go to the host, the first that fits
    the budget, or the smallest.
    """
    if name not in NAMES:
        cure = f"choose {', '.join(NAMES)}"
        raise ConfigError(f"no placement {name!r}", where="engine.placement", cure=cure)
    if host and name == "offload":
        what = "a CPU has no other memory to offload blocks to"
        raise ConfigError(what, where="engine.placement", cure="engine.placement=sequential")
    if host:
        return RESIDENT if name == "resident" else SEQUENTIAL
    candidates = [p for p in CHOICES if name in ("auto", p.name)]
    if budget is None:
        return candidates[0]
    fitting = (p for p in candidates if fits(planned(p, needs, host=False), budget))
    return next(fitting, candidates[-1])


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


def bytes_by_blocks(network: nn.Module) -> int:
    """Bytes of a network's weights while its blocks, the entries of its lists of modules, are on
    the device one after another, with the next one ahead.
    """
    lists = [child for child in network.children() if isinstance(child, nn.ModuleList)]
    blocks = [block for modules in lists for block in modules]
    sizes = sorted(sum(p.nbytes for p in block.parameters()) for block in blocks)
    total = sum(p.nbytes for p in network.parameters())
    return total - sum(sizes) + sum(sizes[-AHEAD:])
