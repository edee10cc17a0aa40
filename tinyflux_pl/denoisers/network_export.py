"""Export a network in another library's layout, load it with that library, and compare."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tinyflux_pl.core import files
from tinyflux_pl.core.errors import CheckpointMismatch, ConfigError
from tinyflux_pl.core.types import Conditioning, TextEmbeddings

TOLERANCE = 1e-5  # of the largest value of the output
CELLS = 8  # along a side of the latents that are compared


def exported(denoiser: Any, layout: str, folder: Path) -> float:
    """Write the denoiser's network into the new `folder`; returns the largest output difference.

    The folder is complete or absent. Raises ConfigError for a layout that the network does not
    have, CheckpointMismatch where what was read back answers otherwise.
    """
    if layout not in denoiser.layouts:
        raise denoiser.no_layout(layout)
    return _written(denoiser, denoiser, partial(denoiser.write_as, layout), folder)


def exported_branch(denoiser: Any, layout: str, folder: Path) -> float:
    """As `exported`, for the denoiser's control branch alone."""
    branch = denoiser.branch
    if layout not in branch.layouts:
        forms = ", ".join(branch.layouts) or "none"
        raise ConfigError(
            f"no layout {layout!r} for a control branch",
            where="layout",
            cure=f"that of {denoiser.name} is written as: {forms}",
        )
    return _written(denoiser, branch, branch.write, folder)


def _written(denoiser: Any, owner: Any, write: Callable[[Path], nn.Module], folder: Path) -> float:
    """Write `owner.net`; returns the denoiser's largest output difference after loading it."""
    staged = files.staging_path(folder)
    try:
        difference = _difference(denoiser, owner, write(staged))
        if difference > TOLERANCE:
            what = f"read back, the network's output differs by {difference:.2g} of its largest"
            raise CheckpointMismatch(what, where=str(folder), cure="report it with the versions")
        staged.rename(folder)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return difference


@torch.inference_mode()
def _difference(denoiser: Any, owner: Any, read_back: nn.Module) -> float:
    """The largest difference of predictions with another `owner.net`, relative to the largest."""
    was_training, network = denoiser.training, owner.net
    inputs = example_inputs(denoiser)
    denoiser.eval()
    try:
        expected = denoiser(*inputs).sample.float()
        weight = next(network.parameters())
        # diffusers' own `to` warns of what it keeps in fp32
        owner.net = nn.Module.to(read_back, device=weight.device, dtype=weight.dtype).eval()
        answer = denoiser(*inputs).sample.float()
    finally:
        owner.net = network
        denoiser.train(was_training)
    return float((answer - expected).abs().max() / expected.abs().max().clamp_min(1e-12))


def example_inputs(denoiser: Any) -> tuple[Tensor, Tensor, Conditioning]:
    """Random latents (1, C, 8, 8), a time and the conditioning that the network needs."""
    weight = next(denoiser.parameters())
    draw = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw).to(weight)

    spec, channels = denoiser.text_spec, denoiser.latent_spec.channels
    mask = torch.ones(1, spec.length, dtype=torch.bool, device=weight.device)
    text = TextEmbeddings(normal(1, spec.length, spec.width), mask, normal(1, spec.pooled))
    width = denoiser.inpaint_channels
    inpaint = normal(1, width, CELLS, CELLS) if width else None
    shape = denoiser.hint_shape(CELLS, CELLS)
    hint = None if shape is None else normal(1, *shape).float()
    t = torch.full((1,), 0.5, device=weight.device)
    return normal(1, channels, CELLS, CELLS), t, Conditioning(text, inpaint=inpaint, hint=hint)
