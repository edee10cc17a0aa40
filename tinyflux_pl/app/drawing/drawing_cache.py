"""The step cache of sampling: configuration, calibration, and a summary of its effect."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tinyflux_pl.config.schema import Generate
from tinyflux_pl.core import files
from tinyflux_pl.core.errors import CheckpointMismatch, ConfigError

COMPUTE_ALL = (0.0, 0.0, 0.0, 0.0, 0.0)  # TeaCache's measure, without a hit at threshold 0


def with_cache(pipeline: Any, config: Generate) -> Any:
    """The pipeline with the step cache of the node `cache`; metadata of its pictures names it."""
    from tinyflux_pl.diffusion.cache_rules import CacheSettings
    from tinyflux_pl.sampling.step_cache import StepCache

    chosen = config.cache
    if chosen.kind == "none" and chosen.calibrate is None:
        return pipeline
    if chosen.calibrate is not None:
        settings = CacheSettings("teacache", 0.0, coefficients=COMPUTE_ALL)
    else:
        coefficients = _coefficients(pipeline, chosen.coefficients)
        settings = CacheSettings(chosen.kind, chosen.threshold, chosen.longest, coefficients)
        settings.require_steps(pipeline.sampler.settings.steps)
        pipeline = pipeline.with_metadata(cache=asdict(settings))
    return replace(pipeline, sampler=replace(pipeline.sampler, cache=StepCache(settings)))


def check(config: Generate, denoiser: Any, steps: int) -> None:
    """Raise ConfigError for a cache that this network or so many steps cannot use.

    The network may lie on the meta device. That a calibration belongs to the weights is judged when
    they are there.
    """
    from tinyflux_pl.diffusion.cache_rules import CacheSettings
    from tinyflux_pl.sampling.step_cache import require_blocks

    chosen = config.cache
    if chosen.kind == "none" and chosen.calibrate is None:
        return
    kind, coefficients = chosen.kind, chosen.coefficients or ()
    if chosen.calibrate is not None:
        kind, coefficients = "teacache", COMPUTE_ALL
    elif isinstance(coefficients, str):
        coefficients = _calibration_in(coefficients)[1]
    settings = CacheSettings(kind, chosen.threshold, chosen.longest, tuple(coefficients))
    settings.require_steps(steps)
    require_blocks(denoiser.block_stack(), kind, denoiser.name)


def identity(pipeline: Any) -> str:
    """Hash of the weights that a calibration belongs to, added adapters included."""
    added = [f"{each['content']}:{each['scale']}" for each in pipeline.origin.get("lora", ())]
    return " + ".join([_base_identity(pipeline), *added])


def _base_identity(pipeline: Any) -> str:
    from tinyflux_pl.inference import provenance

    if "checkpoint" in pipeline.origin:
        return f"{pipeline.origin['checkpoint']} {pipeline.origin['weights']}"
    content = provenance.contents(pipeline.denoiser.weight_files)
    hashes = " ".join(content[name] for name in sorted(content))
    return hashes or f"random weights of {pipeline.denoiser.name}"


def _coefficients(pipeline: Any, source: str | Sequence[float] | None) -> Sequence[float]:
    """Those of a calibration's file, whose weights must be these; a list is a picture's record."""
    if not isinstance(source, str):
        return tuple(source or ())
    weights, coefficients = _calibration_in(source)
    here = identity(pipeline)
    if weights != here:
        what = f"it was fitted to other weights ({weights}, here {here})"
        cure = f"fit it to these: cache.kind=none cache.calibrate={source}"
        raise CheckpointMismatch(what, where=str(Path(source).expanduser()), cure=cure)
    return coefficients


def _calibration_in(source: str) -> tuple[Any, tuple[float, ...]]:
    """The weights that a calibration's file belongs to, and its coefficients; ConfigError."""
    path = Path(source).expanduser()
    if not path.is_file():
        cure = f"make it: cache.calibrate={source}, with ten prompts or more"
        raise ConfigError("no such calibration", where=str(path), cure=cure)
    calibration = files.read_object(path)
    values = calibration.get("coefficients")
    if not isinstance(values, list) or not all(isinstance(v, int | float) for v in values):
        raise ConfigError("it holds no coefficients", where=str(path), cure="make it again")
    return calibration.get("weights"), tuple(float(v) for v in values)


def report_lines(
    pipeline: Any, config: Generate, paths: Sequence[Path], prompts: Sequence[str]
) -> list[str]:
    """Lines on the effect of the cache; fits and writes the calibration if requested."""
    cache = pipeline.sampler.cache
    if cache is None:
        return []
    if config.cache.calibrate is not None:
        return [_calibrated(pipeline, config.cache.calibrate)]
    line = f"{cache.hit_rate:.0%} of {cache.forwards} forward passes reused the last result"
    if config.cache.measure:
        line += (
            f"; {_psnr_without(pipeline, config, paths, prompts):.1f} dB to the pictures without"
        )
    return [line]


def _calibrated(pipeline: Any, file: str) -> str:
    from tinyflux_pl.diffusion.cache_rules import fitted

    cache, path = pipeline.sampler.cache, Path(file).expanduser()
    coefficients = fitted(cache.movements, cache.changes)
    settings = {"steps": pipeline.sampler.settings.steps, "pairs": len(cache.movements)}
    record = {"weights": identity(pipeline), "coefficients": coefficients, **settings}
    files.write_json(path, record)
    return f"fitted to {len(cache.movements)} pairs of steps: {path}"


def _psnr_without(
    pipeline: Any, config: Generate, paths: Sequence[Path], prompts: Sequence[str]
) -> float:
    """Peak signal-to-noise ratio in dB to the same pictures drawn without a cache."""
    import numpy as np
    from PIL import Image

    from tinyflux_pl.core import precision
    from tinyflux_pl.sampling.picture import to_picture

    plain = replace(pipeline.sampler, cache=None)
    requests = [(p, i) for p in prompts for i in range(config.first, config.first + config.n)]
    with precision.autocast(pipeline.precision, pipeline.device):
        images = plain.images(
            pipeline.denoiser,
            [prompt for prompt, _ in requests],
            negative_prompt=config.negative_prompt,
            indices=[i for _, i in requests],
            seed=config.seed,
        )
    errors = []
    for path, image in zip(paths, images, strict=True):
        with Image.open(path) as picture:
            drawn = np.asarray(picture, dtype=np.float64)
        errors.append(((drawn - np.asarray(to_picture(image), dtype=np.float64)) ** 2).mean())
    error = float(np.mean(errors))
    return 10 * math.log10(255**2 / error) if error else math.inf
