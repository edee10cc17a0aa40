"""The pipeline of a family next to ours: same folder, noise and prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from tests.app.runs import settings
from tinyflux_pl.core import rng

PROMPT = "a red circle left of the blue square"
EXACT = (
    "hardware.precision=32-true",
    "model.dtype=float32",
    "codec.dtype=float32",
    "text.dtype=float32",
)


def project_pipeline(model: str, folder: Path, height: int, width: int, *overrides: str) -> Any:
    """Our pipeline in fp32 as generate.py makes it from a folder."""
    from tinyflux_pl.app.drawing.build_pipeline import pipeline

    words = [
        f"model={model}",
        f"model.weights='{folder}'",
        f"height={height}",
        f"width={width}",
        *EXACT,
        *overrides,
    ]
    return pipeline(settings("generate", folder, f"prompt='{PROMPT}'", *words))


def diffusers_pipeline(kind: str, folder: Path) -> Any:
    """diffusers' pipeline of that class from the same folder, silent."""
    import diffusers

    diffusers.utils.logging.disable_progress_bar()
    built = getattr(diffusers, kind).from_pretrained(
        str(folder), local_files_only=True, low_cpu_mem_usage=False
    )
    built.set_progress_bar_config(disable=True)
    return built


def draw(pipeline: Any, seed: int = 3, **options: Any) -> Tensor:
    """Our image (1, 3, H, W) in [0, 1]."""
    image = pipeline.sampler.images(pipeline.denoiser, [PROMPT], seed=seed, **options)
    return (image + 1) / 2


def noise(pipeline: Any, seed: int = 3) -> Tensor:
    """The noise (1, C, h, w) that `draw` begins with."""
    return rng.normal(pipeline.sampler.latent_shape(), seed, "sampling", [0])


def difference(actual: Tensor, expected: Tensor) -> float:
    """The largest absolute difference; both must tell something."""
    assert actual.shape == expected.shape and float(expected.std()) > 0.01
    return float((actual - expected).abs().max())
