"""A network in the layout of another library, loaded back by it and compared before it counts."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tinyflux_pl.core import files
from tinyflux_pl.core.errors import CheckpointMismatch, ConfigError
from tinyflux_pl.core.types import Conditioning, TextEmbeddings

TOLERANCE = 1e-5  # of the largest value of the output
CELLS = 8  # along a side of the latents that are compared


def exported(denoiser: Any, layout: str, folder: Path) -> float:
    """Write the denoiser's network into the new `folder`; the largest difference of its outputs.

    The folder is complete or absent. Raises ConfigError for a layout that the network does not
    have, CheckpointMismatch where what was read back answers otherwise.
    """
    if layout not in denoiser.layouts:
        raise denoiser.no_layout(layout)
    if denoiser.branch is not None:
        cure = "export the base; a control branch has no such layout here"
        raise ConfigError("the network has a control branch", where=denoiser.name, cure=cure)
    staged = files.staging_path(folder)
    try:
        read_back = denoiser.write_as(layout, staged)
        difference = _difference(denoiser, read_back)
        if difference > TOLERANCE:
            what = f"read back, the network's output differs by {difference:.2g} of its largest"
            raise CheckpointMismatch(what, where=str(folder), cure="report it with the versions")
        staged.rename(folder)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return difference


@torch.inference_mode()
def _difference(denoiser: Any, read_back: Any) -> float:
    """The largest difference of two networks' predictions, relative to the largest prediction."""
    was_training, network = denoiser.training, denoiser.net
    inputs = example_inputs(denoiser)
    denoiser.eval()
    try:
        expected = denoiser(*inputs).sample.float()
        weight = next(network.parameters())
        denoiser.net = read_back.to(device=weight.device, dtype=weight.dtype).eval()
        answer = denoiser(*inputs).sample.float()
    finally:
        denoiser.net = network
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
    t = torch.full((1,), 0.5, device=weight.device)
    return normal(1, channels, CELLS, CELLS), t, Conditioning(text, inpaint=inpaint)
