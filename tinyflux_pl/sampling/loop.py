"""From noise to latents: the loop of previews, validation and final images alike."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tinyflux_pl.core import interruption, rng
from tinyflux_pl.core.errors import ConfigError, SpecMismatch
from tinyflux_pl.core.protocols import Denoiser
from tinyflux_pl.core.transfer import to_device
from tinyflux_pl.core.types import Conditioning, TextEmbeddings
from tinyflux_pl.diffusion.grids import FINALS, SIGMAS, check_spacing, grid
from tinyflux_pl.diffusion.guidance import Guidance
from tinyflux_pl.diffusion.paths import progress_toward
from tinyflux_pl.diffusion.prediction import to_data_and_noise
from tinyflux_pl.diffusion.shifts import check_shift, shift_for
from tinyflux_pl.diffusion.solvers import solver_named
from tinyflux_pl.sampling.field import Field

STARTS = ("unit", "sigma")
Progress = Callable[[int, int], None]  # steps done, steps in all


@dataclass(frozen=True)
class SamplerSettings:
    """How to draw: number of steps, solver (diffusion.solvers), guidance, and the grid's shift.

    shift > 1 spends more steps in noise; as a name it is a rule of diffusion.shifts.SHIFT_RULES, by the image's
    tokens and the steps; [low, high, base, largest] is FLUX.1's rule with these numbers in place of its own. toward
    "data" is the original TinyFlux's grid; spacing, offset, sigmas and final: see grids.grid. start: what is drawn
    from is unit noise, has the deviation (sigma) of its first time, or is noise times a factor.
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
        for name, known in (("sigmas", SIGMAS), ("final", FINALS)):
            if getattr(self, name) not in known:
                cure = f"one of {', '.join(known)}"
                raise ConfigError(f"no {name} {getattr(self, name)!r}", where=f"sampler.{name}", cure=cure)
        named = self.start in STARTS
        if not named and (isinstance(self.start, str) or not 0 < self.start < float("inf")):
            cure = f"{', '.join(STARTS)}, or a positive factor"
            raise ConfigError(f"no start {self.start!r}", where="sampler.start", cure=cure)
        check_spacing(self.spacing, self.steps, self.shift, self.toward)
        check_shift(self.shift, self.toward, "sampler", rules=True)
        if self.steps < 1:
            raise ConfigError(f"steps={self.steps}", where="sampler.steps", cure="at least 1")


@contextmanager
def evaluating(denoiser: Denoiser) -> Generator[None]:
    """Dropout off inside; every module's own mode restored afterwards, whatever happens."""
    modules = list(denoiser.modules()) if isinstance(denoiser, nn.Module) else []
    modes = [module.training for module in modules]
    try:
        for module in modules:
            module.training = False
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode


def _checked(
    denoiser: Denoiser, told: TextEmbeddings | Conditioning, rows: int, shape: Sequence[int], guidance: Guidance
) -> Conditioning:
    """What every one of `rows` images is told, on the text's device."""
    if shape[0] != denoiser.latent_spec.channels:
        raise SpecMismatch(
            f"latents of {shape[0]} channels for a denoiser of {denoiser.latent_spec.channels}",
            where="sample: shape",
            cure="shape is (channels, height, width) in the denoiser's latent cells",
        )
    cond = told if isinstance(told, Conditioning) else Conditioning(told)
    if guidance.embedded is not None:
        if not denoiser.reads_guidance:
            cure = "guidance.embedded=null; guidance.scale guides any network, at twice the cost"
            raise ConfigError("this network has no guidance input", where="guidance.embedded", cure=cure)
        cond = replace(cond, embedded_guidance=torch.full((1,), float(guidance.embedded)))
    device = cond.text.tokens.device

    def spread(part: Any) -> Any:
        if len(part) not in (1, rows):
            raise ConfigError(
                f"{len(part)} prompts for {rows} images", where="sample", cure="one sample id a prompt, or one prompt"
            )
        part = part.to(device)
        if len(part) == rows:
            return part
        return part.expand(rows) if isinstance(part, TextEmbeddings) else part.expand(rows, *part.shape[1:])

    return cond.rows(spread)


def _noise(shape: tuple[int, int, int], real: Tensor | None, seed: int, stream: str, ids: Sequence[int]) -> Tensor:
    """What each image begins with; the padding of a sequence has none, and takes none from the other tokens."""
    if real is None:
        return rng.normal(shape, seed, stream, ids)
    x = torch.zeros(len(ids), *shape)
    for row, i in enumerate(ids):
        cells = real[row].cpu().view(shape[1:])
        x[row, :, cells] = rng.normal((shape[0], int(cells.sum())), seed, stream, [i])[0]
    return x


def _fresh(
    shape: tuple[int, int, int], seed: int, stream: str, ids: Sequence[int], device: torch.device
) -> Callable[[int], Tensor]:
    """Noise that an ancestral solver adds after a step: of each image its own, whatever its batch."""
    return lambda index: to_device(rng.normal(shape, seed, f"{stream}/ancestral", ids, step=index), device)


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
) -> Float[Tensor, "b c h w"]:
    """Latents (B, C, H, W) in fp32 on the text's device, one for each sample id.

    text, and each part of a whole conditioning, has one row an id or a single row for all; null is the text
    encoder's null(), needed unless guidance.scale is 1: the unconditional is told the same pictures and sizes.
    Image i depends on (seed, stream, sample_ids[i], text[i]), not on its batch, nor a sequence on its padding.
    """
    settings = settings or SamplerSettings()
    told = _checked(denoiser, text, len(sample_ids), shape, settings.guidance)
    device, path = told.text.tokens.device, denoiser.path
    tokens = shape[1] * shape[2] // denoiser.patch_size**2
    shift = shift_for(settings.shift, tokens, settings.steps)
    spaced = {name: getattr(settings, name) for name in ("offset", "sigmas", "final")}
    times = grid(settings.steps, path, shift, settings.toward, settings.spacing, **spaced)
    shares = progress_toward(path, times, "data").tolist()
    moving = (i for i, share in enumerate(shares) if not settings.guidance.is_zero_init_step(share))
    still = next(moving, len(times) - 1)
    stops_short = (
        settings.final == "data" and float(path.sigma(times[-1:])[0]) > 0
    )  # as a VP table does: there the data is read off
    solve = solver_named(settings.solver)
    chunks = [slice(i, min(i + max_batch, len(sample_ids))) for i in range(0, len(sample_ids), max_batch)]
    done: list[Tensor] = []

    def on_step(index: int, _: Tensor) -> None:
        interruption.poll()
        if progress:
            progress(len(done) * settings.steps + still + index + 1, len(chunks) * settings.steps)

    with torch.inference_mode(), evaluating(denoiser):
        for rows in chunks:
            ids = list(sample_ids[rows])
            cond = told.rows(lambda part, rows=rows: part[rows])
            bare = None if null is None else null.to(device).expand(len(ids))
            uncond = None if bare is None else replace(cond, text=bare, ports={}, port_mask={})
            velocity = Field(denoiser, cond, uncond, settings.guidance)
            x = to_device(_noise(shape, cond.target_mask, seed, stream, ids), device)
            if settings.start != "unit":
                x = x * (path.sigma(times[:1]).item() if settings.start == "sigma" else float(settings.start))
            x = solve(
                velocity, x, times[still:], path, on_step, _fresh(shape, seed, stream, ids, device)
            )  # CFG-Zero's first steps move nothing
            if stops_short:
                last = times[-1:].expand(len(ids))
                x, _ = to_data_and_noise("velocity", velocity(x, last), x, to_device(last, device), path)
            done.append(x)
    # outside inference mode, so that the result may enter autograd
    return torch.cat(done) if done else torch.empty(0, *shape, device=device)
