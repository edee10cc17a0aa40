"""The prediction of a denoiser for a student's sample, as a velocity of the student's path."""

from __future__ import annotations

from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from tinyflux_pl.core.protocols import Denoiser, Path
from tinyflux_pl.core.types import Conditioning
from tinyflux_pl.diffusion.paths import match_log_snr
from tinyflux_pl.diffusion.prediction import to_data_and_noise


def expected(
    teacher: Denoiser, x: Float[Tensor, "b c h w"], tau: Float[Tensor, " b"], cond: Conditioning
) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b c h w"]]:
    """The data and the noise that the teacher expects in x at its own time tau, fp32."""
    output = teacher(x, tau, cond).sample.float()
    return to_data_and_noise(teacher.prediction, output, x.float(), tau.float(), teacher.path)


def velocity(
    teacher: Denoiser,
    latents: Float[Tensor, "b c h w"],
    noise: Float[Tensor, "b c h w"],
    t: Float[Tensor, " b"],
    path: Path,
    cond: Conditioning,
) -> Float[Tensor, "b c h w"]:
    """The velocity of the student's path at its time t, fp32.

    The teacher sees the same data and noise, mixed by its own path at the student's log-SNR.
    """
    tau = match_log_snr(path, teacher.path, t)
    dtype = next(teacher.parameters()).dtype
    x = teacher.path.interpolate(latents.float(), noise, tau).to(dtype)
    conditioned = replace(cond, text=cond.text.to(x.device, dtype))
    return path.velocity(*expected(teacher, x, tau, conditioned), t)
