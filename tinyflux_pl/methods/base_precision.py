"""A frozen base in fewer bits while an addition to it trains (QLoRA, Dettmers et al. 2023).

Checkpoints refer to the plain base, so an addition is drawn on it, or on a base that is packed
again (generate.py engine.precision=).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.denoisers.gguf_linear import UNPACKED
from tinyflux_pl.denoisers.gguf_linear import WHERE as BLOCKS
from tinyflux_pl.engine.packing import Packing, pack
from tinyflux_pl.methods.method import Method

WHERE = "method.base_precision"
AUTO = "auto"
FORMATS = ("fp8", "int8", "int4")
IN_TURN = (None, "int8", "int4")  # that auto tries until the memory suffices, the best first


def check_format(name: str | None) -> str | None:
    """Return the name of a format, auto or None; ConfigError for another."""
    if name in (None, AUTO, *FORMATS):
        return name
    what = f"no format {name!r} of a frozen base"
    if name == "nf4":
        what = "nf4 is not offered: int4 here has a scale for 64 channels, and needs no library"
    raise ConfigError(what, where=WHERE, cure=f"choose null, {AUTO}, {', '.join(FORMATS)}")


def refuse(name: str | None, method: str) -> None:
    """Raise ConfigError for a format where a checkpoint holds the whole network."""
    if name is not None:
        what = f"method={method} writes every weight into checkpoints, in its own format"
        raise ConfigError(what, where=WHERE, cure="method=lora, or method.base_precision=null")


def check_blocks(model: Mapping[str, Any], method: Method) -> None:
    """Raise ConfigError where the method cannot train on GGUF blocks (model.packed)."""
    if not model.get("packed"):
        return
    if method.reads_weights:
        what = f"method={method.name} needs its base's weights: {method.reads_weights}"
        raise ConfigError(what, where=BLOCKS, cure=UNPACKED)
    if method.base_precision not in (None, AUTO):
        what = f"model.packed keeps the blocks of a GGUF file, and {WHERE} would pack them again"
        raise ConfigError(what, where=WHERE, cure=f"{WHERE}=null, or model.packed=false")


def pack_base(denoiser: nn.Module, method: Method) -> Packing | None:
    """Quantize the frozen linear layers of a prepared denoiser, in place, if configured.

    What its checkpoints hold stays as it is. ConfigError for DoRA and LoKr.
    """
    name = method.base_precision
    if name is None or name == AUTO:
        return None
    return pack(denoiser, name, where=WHERE, kept=method.saved(denoiser))
