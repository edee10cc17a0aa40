"""What the parts of a generation need in memory, from their structure alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tinyflux_pl.app.compose import build
from tinyflux_pl.core.errors import ConfigError


@dataclass(frozen=True)
class PlannedPart:
    """One network: what it is called, its parameters, the type and the bytes of its weights."""

    name: str
    parameters: int
    dtype: str
    bytes: int


def generation_plan(config: dict[str, Any]) -> list[PlannedPart]:
    """Denoiser, codec and text encoders on the meta device; weights are not read, and need not be there."""
    import torch

    from tinyflux_pl.core.precision import check_dtype

    if config["plan"] != "only":
        raise ConfigError(f"plan={config['plan']!r}", where="plan", cure="plan=only, or leave it out")
    if not config["model"]:
        raise ConfigError("no model to plan for", where="plan", cure="name one: model=flux1_dev")
    codec, text, path = (build(config[name]) for name in ("codec", "text", "path"))
    with torch.device("meta"):
        denoiser = build(config["model"], latent_spec=codec.latent_spec, text_spec=text.text_spec, path=path)
    nets = [("denoiser", denoiser, str(next(denoiser.parameters()).dtype).removeprefix("torch."))]
    if hasattr(codec, "skeleton"):
        nets.append(("codec", codec.skeleton(), codec.dtype))
    if hasattr(text, "skeletons"):
        nets += [(f"text: {name}", net, text.dtype) for name, net in text.skeletons().items()]
    planned = []
    for name, net, dtype in nets:
        count = sum(parameter.numel() for parameter in net.parameters())
        planned.append(PlannedPart(name, count, dtype, count * check_dtype(dtype, name).itemsize))
    return planned
