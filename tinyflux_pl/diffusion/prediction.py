"""Conversion between velocity, epsilon, x0 and v, on any path.

With a, s = alpha, sigma and a', s' their rates, every kind is a mixture of data and noise:

    x_t      = a  x0 + s  noise
    velocity = a' x0 + s' noise        = dx_t / dt
    v        = -s x0 + a  noise        Salimans and Ho 2022 (2202.00512)

so a prediction and x_t are two equations for two unknowns, whose determinant is -1 or +1 for the
linear path's velocity and a^2 + s^2 for v: nothing is divided by a small number there. Reading x0
from epsilon divides by a, and noise from x0 by s: there 1 / a becomes a / (a^2 + 1e-10), so that
where x_t carries no information the result fades to 0, the mean of normalised data and of noise.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.protocols import Path
from tinyflux_pl.diffusion.paths import expand_like

KINDS = ("velocity", "epsilon", "x0", "v")
RIDGE = 1e-10


def check_kind(kind: str, where: str = "prediction") -> None:
    """Raise ConfigError for a kind of prediction that does not exist."""
    if kind not in KINDS:
        raise ConfigError(
            f"unknown prediction {kind!r}", where=where, cure=f"choose {', '.join(KINDS)}"
        )


def to_data_and_noise(
    kind: str,
    output: Float[Tensor, "b ..."],
    x_t: Float[Tensor, "b ..."],
    t: Float[Tensor, " b"],
    path: Path,
) -> tuple[Float[Tensor, "b ..."], Float[Tensor, "b ..."]]:
    """(x0, noise) implied by the output: alpha x0 + sigma noise = x_t."""
    check_kind(kind)
    a, s = expand_like(path.alpha(t), x_t), expand_like(path.sigma(t), x_t)
    if kind == "epsilon":
        return (x_t - s * output) * (a / (a.square() + RIDGE)), output
    if kind == "x0":
        return output, (x_t - a * output) * (s / (s.square() + RIDGE))
    if kind == "v":
        square = a.square() + s.square()
        return (a * x_t - s * output) / square, (s * x_t + a * output) / square
    a_rate, s_rate = expand_like(path.alpha_rate(t), x_t), expand_like(path.sigma_rate(t), x_t)
    determinant = a * s_rate - s * a_rate
    # the coefficients first: on a VP path near the end both they and the determinant are small
    x0 = (s_rate / determinant) * x_t - (s / determinant) * output
    noise = (a / determinant) * output - (a_rate / determinant) * x_t
    return x0, noise


def target(
    kind: str,
    data: Float[Tensor, "b ..."],
    noise: Float[Tensor, "b ..."],
    t: Float[Tensor, " b"],
    path: Path,
) -> Float[Tensor, "b ..."]:
    """The regression target of a network of that kind at time t."""
    check_kind(kind)
    if kind == "velocity":
        return path.velocity(data, noise, t)
    if kind == "epsilon":
        return noise
    if kind == "x0":
        return data
    return expand_like(path.alpha(t), data) * noise - expand_like(path.sigma(t), data) * data


def convert(
    output: Float[Tensor, "b ..."],
    x_t: Float[Tensor, "b ..."],
    t: Float[Tensor, " b"],
    path: Path,
    from_kind: str,
    to_kind: str,
) -> Float[Tensor, "b ..."]:
    """A prediction in another kind, at the same x_t and t."""
    if from_kind == to_kind:
        check_kind(from_kind)
        return output
    return target(to_kind, *to_data_and_noise(from_kind, output, x_t, t, path), t, path)
