"""The sampling loop, from noise to latents: one for previews, evaluation and final images."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tinyflux_pl.core import interruption
from tinyflux_pl.core.errors import ConfigError, SpecMismatch
from tinyflux_pl.core.protocols import Denoiser, Path
from tinyflux_pl.core.transfer import to_device
from tinyflux_pl.core.types import Conditioning, TextEmbeddings
from tinyflux_pl.diffusion.grids import FINALS, SIGMAS, check_spacing, grid
from tinyflux_pl.diffusion.guidance import Guidance
from tinyflux_pl.diffusion.paths import progress_toward
from tinyflux_pl.diffusion.prediction import to_data_and_noise
from tinyflux_pl.diffusion.shifts import check_shift, shift_for
from tinyflux_pl.diffusion.solvers import solver_named
from tinyflux_pl.sampling.field import Field
from tinyflux_pl.sampling.initial import Initial
from tinyflux_pl.sampling.noise import ancestral_noise, initial_noise
from tinyflux_pl.sampling.step_cache import StepCache, cached

STARTS = ("unit", "sigma")
Progress = Callable[[int, int], None]  # steps done, steps in all


@dataclass(frozen=True)
class SamplerSettings:
    """Number of steps, solver (diffusion.solvers), guidance, and the grid of times.

    A shift above 1 spends more steps in noise. A name is a rule of diffusion.shifts.SHIFT_RULES,
    which depends on the image's tokens and the steps; [low, high, base, largest] is FLUX.1's rule
    with these numbers instead of its own. toward "data" is the original TinyFlux's grid; spacing,
    offset, sigmas and final: see grids.grid. start: "unit" noise, noise scaled to the "sigma" of
    the first time, or noise times a factor.
    """

    steps: int = 28
    solver: str = "heun"
    guidance: Guidance = field(default_factory=Guidance)
    shift: float | str | Sequence[float] = 1.0
    toward: str = "noise"
    spacing: str = "even"
    offset: int = 1
    sigmas: str = "spaced"
    final: str = "data"
    start: str | float = "unit"

    def __post_init__(self) -> None:
        solver_named(self.solver)
        _require_choice("sigmas", self.sigmas, SIGMAS)
        _require_choice("final", self.final, FINALS)
        is_name = self.start in STARTS
        if not is_name and (isinstance(self.start, str) or not 0 < self.start < float("inf")):
            raise ConfigError(
                f"no start {self.start!r}",
                where="sampler.start",
                cure=f"{', '.join(STARTS)}, or a positive factor",
            )
        check_spacing(self.spacing, self.steps, self.shift, self.toward)
        check_shift(self.shift, self.toward, "sampler", rules=True)
        if self.steps < 1:
            raise ConfigError(f"steps={self.steps}", where="sampler.steps", cure="at least 1")


def _require_choice(key: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ConfigError(
            f"no {key} {value!r}",
            where=f"sampler.{key}",
            cure=f"choose one of {', '.join(choices)}",
        )


@contextmanager
def evaluating(denoiser: Denoiser) -> Generator[None]:
    """Put every module into evaluation mode inside the block, and restore its mode afterwards."""
    modules = list(denoiser.modules()) if isinstance(denoiser, nn.Module) else []
    modes = [module.training for module in modules]
    try:
        for module in modules:
            module.training = False
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode


def require_guidance_input(guidance: Guidance, denoiser: Denoiser) -> None:
    """Raise ConfigError for `embedded` guidance of a network without an input for it."""
    if guidance.embedded is not None and not denoiser.reads_guidance:
        raise ConfigError(
            "this network has no guidance input",
            where="guidance.embedded",
            cure="guidance.embedded=null; guidance.scale guides any network, at twice the cost",
        )


def _prepare_conditioning(
    denoiser: Denoiser,
    text: TextEmbeddings | Conditioning,
    rows: int,
    shape: Sequence[int],
    guidance: Guidance,
) -> Conditioning:
    """Conditioning of `rows` images on the text's device; raises for shapes that do not fit."""
    if shape[0] != denoiser.latent_spec.channels:
        raise SpecMismatch(
            f"latents of {shape[0]} channels for a denoiser of {denoiser.latent_spec.channels}",
            where="sample: shape",
            cure="shape is (channels, height, width) in the denoiser's latent cells",
        )
    cond = text if isinstance(text, Conditioning) else Conditioning(text)
    if guidance.embedded is not None:
        require_guidance_input(guidance, denoiser)
        cond = replace(cond, embedded_guidance=torch.full((1,), float(guidance.embedded)))
    device = cond.text.tokens.device

    def expand(part: Any) -> Any:
        if len(part) not in (1, rows):
            raise ConfigError(
                f"{len(part)} prompts for {rows} images",
                where="sample",
                cure="one sample id a prompt, or one prompt",
            )
        part = part.to(device)
        if len(part) == rows:
            return part
        if isinstance(part, TextEmbeddings):
            return part.expand(rows)
        return part.expand(rows, *part.shape[1:])

    return cond.rows(expand)


def step_times(settings: SamplerSettings, path: Path, tokens: int) -> Float[Tensor, " steps_and_1"]:
    """The times of a sampler's steps (steps + 1,) for pictures of so many image tokens."""
    return grid(
        settings.steps,
        path,
        shift_for(settings.shift, tokens, settings.steps),
        settings.toward,
        settings.spacing,
        offset=settings.offset,
        sigmas=settings.sigmas,
        final=settings.final,
    )


def sample(
    denoiser: Denoiser,
    text: TextEmbeddings | Conditioning,
    null: TextEmbeddings | None = None,
    *,
    shape: tuple[int, int, int],
    sample_ids: Sequence[int],
    seed: int,
    settings: SamplerSettings | None = None,
    stream: str = "sampling",
    max_batch: int = 16,
    progress: Progress | None = None,
    initial: Initial | None = None,
    cache: StepCache | None = None,
) -> Float[Tensor, "b c h w"]:
    """Latents (B, C, H, W) in fp32 on the text's device, one for each sample id.

    `text`, or each part of a Conditioning, has one row an id or a single row for all. `null` is the
    text encoder's null(), needed unless guidance.scale is 1; the unconditional keeps references and
    sizes. Image i depends on (seed, stream, sample_ids[i], text[i]), not on its batch; a sequence
    does not depend on its padding. `initial` is a picture to begin from, or to keep a part of;
    `cache` passes blocks by.
    """
    settings = settings or SamplerSettings()
    cond = _prepare_conditioning(denoiser, text, len(sample_ids), shape, settings.guidance)
    device, path = cond.text.tokens.device, denoiser.path
    tokens = shape[1] * shape[2] // denoiser.patch_size**2
    times = step_times(settings, path, tokens)
    first_step = _first_moving_step(path, times, settings.guidance)
    if initial is not None:
        if initial.mask is not None:
            require_deterministic(settings)
        first_step = max(first_step, initial.first_step(settings.steps))
    # As on a VP table, whose last sigma is above 0: the data is then computed from the prediction.
    ends_before_data = settings.final == "data" and float(path.sigma(times[-1:])[0]) > 0
    solve = solver_named(settings.solver)
    starts = range(0, len(sample_ids), max_batch)
    chunks = [slice(start, min(start + max_batch, len(sample_ids))) for start in starts]
    done: list[Tensor] = []

    def on_step(index: int, _: Tensor) -> None:
        interruption.poll()
        if progress:
            steps_done = len(done) * settings.steps + first_step + index + 1
            progress(steps_done, len(chunks) * settings.steps)

    with torch.inference_mode(), evaluating(denoiser):
        for rows in chunks:
            ids = list(sample_ids[rows])
            chunk_cond = cond.rows(lambda part, rows=rows: part[rows])
            uncond = None
            if null is not None:
                null_text = null.to(device).expand(len(ids))
                uncond = replace(chunk_cond, text=null_text, ports={}, port_mask={})
            velocity = Field(denoiser, chunk_cond, uncond, settings.guidance, times, cache)
            unit = initial_noise(shape, chunk_cond.target_mask, seed, stream, ids)
            x = unit = to_device(unit, device)
            if settings.start == "sigma":
                x = x * path.sigma(times[:1]).item()
            elif settings.start != "unit":
                x = x * float(settings.start)
            if initial is not None:
                x = initial.start(x, unit, times[first_step], path)
            field = velocity if initial is None else initial.constrained(velocity, unit, path)
            noise = ancestral_noise(shape, seed, stream, ids, device)
            with cached(cache, denoiser, settings.steps):
                x = solve(field, x, times[first_step:], path, on_step, noise)
            if ends_before_data:
                last = times[-1:].expand(len(ids))
                output = field(x, last)
                x, _ = to_data_and_noise("velocity", output, x, to_device(last, device), path)
            done.append(x)
    # outside inference mode, so that the result may enter autograd
    return torch.cat(done) if done else torch.empty(0, *shape, device=device)


def require_deterministic(settings: SamplerSettings) -> None:
    """Raise ConfigError for a solver that adds noise, where a part of a picture is kept."""
    if settings.solver == "euler_ancestral":
        what = "the kept part of a picture would be given new noise at each step"
        raise ConfigError(what, where="sampler.solver", cure="sampler.solver=euler")


def _first_moving_step(path: Path, times: Tensor, guidance: Guidance) -> int:
    """Index of the first step that CFG-Zero*'s zero initialisation does not skip."""
    fractions = progress_toward(path, times, "data").tolist()
    moving = (i for i, at in enumerate(fractions) if not guidance.is_zero_init_step(at))
    return next(moving, len(times) - 1)
