"""A release's scheduler_config.json as path, prediction and sampler; others are refused."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.sampling.scheduler_file import CURE, SchedulerFile

KINDS = {"epsilon": "epsilon", "v_prediction": "v", "sample": "x0"}
TERMINAL = 2.0**-24  # alpha_bar of the last entry in schedulers that divide by it, where it is zero


@dataclass(frozen=True)
class Schedule:
    """Path, kind of prediction and sampler settings that a release prescribes.

    `path` is a registry name with its settings; `prediction` is None where the family decides it.
    `data_deviation` is that of an EDM network's training latents, which the path divides by it.
    """

    path: tuple[str, dict[str, Any]]
    prediction: str | None
    sampler: dict[str, Any]
    data_deviation: float = 1.0


def schedule_of(
    kind: str, settings: Mapping[str, Any], where: str, spacing: str, dynamic_shift: str
) -> Schedule:
    """The schedule of a scheduler of class `kind` with these settings.

    `spacing` and `dynamic_shift` are the family's: how its pipeline spaces times before a shift,
    and by which rule of diffusion.shifts a shift depends on the image. ConfigError names the class
    or the setting that is not followed.
    """
    reader = READERS.get(kind)
    if reader is None:
        cure = f"one of {', '.join(READERS)}; or {CURE}"
        raise ConfigError(
            f"the release's scheduler {str(kind)[:60]} is not supported", where=where, cure=cure
        )
    file = SchedulerFile(kind, settings, where)
    file.only(num_train_timesteps=1000)
    schedule = reader(file, spacing, dynamic_shift)
    file.close()
    return schedule


def _flow(file: SchedulerFile, spacing: str, dynamic_shift: str) -> Schedule:
    file.only(
        shift_terminal=0,
        invert_sigmas=False,
        stochastic_sampling=False,
        time_shift_type="exponential",
    )
    file.only(use_karras_sigmas=False, use_exponential_sigmas=False, use_beta_sigmas=False)
    shift: Any = file.number("shift", 1.0)
    low, high = file.number("base_shift", 0.5), file.number("max_shift", 1.15)
    base, largest = file.number("base_image_seq_len", 256), file.number("max_image_seq_len", 4096)
    if file.take("use_dynamic_shifting", False):
        points = [float(low), float(high), float(base), float(largest)]
        is_custom = dynamic_shift == "flux1" and points != [0.5, 1.15, 256, 4096]
        shift = points if is_custom else dynamic_shift
        spacing = "table" if spacing == "sd3" else spacing
    return Schedule(
        ("linear", {"noise_at": 1}), None, _sampler(solver="euler", shift=shift, spacing=spacing)
    )


def _table(file: SchedulerFile, zero: float) -> tuple[str, dict[str, Any]]:
    """The table of betas; `zero` replaces a terminal SNR of zero."""
    file.only(trained_betas=None)
    kinds = {"linear": "linear", "scaled_linear": "scaled_linear"}
    table: dict[str, Any] = {"schedule": file.choice("beta_schedule", "linear", kinds)}
    table |= {
        "beta_start": file.number("beta_start", 1e-4),
        "beta_end": file.number("beta_end", 0.02),
        "steps": 1000,
    }
    if file.take("rescale_betas_zero_snr", False):
        return "vp", {**table, "zero_terminal_snr": True, "terminal_alpha_bar": zero}
    return "vp", {**table, "zero_terminal_snr": False}


def _spacing(file: SchedulerFile, default: str, spacings: Mapping[str, str]) -> dict[str, Any]:
    spacing = file.choice("timestep_spacing", default, spacings)
    return {"spacing": spacing, "offset": int(file.number("steps_offset", 0))}


ALL = {"leading": "leading", "trailing": "trailing", "linspace": "linspace"}


def _euler(file: SchedulerFile, *_: str) -> Schedule:
    file.only(interpolation_type="linear", timestep_type="discrete", use_beta_sigmas=False)
    spaced = _spacing(file, "linspace", ALL)
    karras, exponential = (
        file.take("use_karras_sigmas", False),
        file.take("use_exponential_sigmas", False),
    )
    if karras or exponential:
        file.only(sigma_min=None, sigma_max=None)
    settings = {
        **spaced,
        "sigmas": "karras" if karras else "exponential" if exponential else "spaced",
    }
    settings["final"] = file.choice(
        "final_sigmas_type", "zero", {"zero": "data", "sigma_min": "table"}
    )
    settings["start"] = "unit" if spaced["spacing"] == "leading" else "sigma"
    return Schedule(_table(file, TERMINAL), _kind(file), _sampler(solver="euler", **settings))


def _ancestral(file: SchedulerFile, *_: str) -> Schedule:
    spaced = _spacing(file, "linspace", ALL)
    start = "unit" if spaced["spacing"] == "leading" else "sigma"
    return Schedule(
        _table(file, TERMINAL),
        _kind(file),
        _sampler(solver="euler_ancestral", start=start, **spaced),
    )


def _ddim(file: SchedulerFile, *_: str) -> Schedule:
    if file.take("clip_sample", True):
        raise file.refused("clip_sample", True, "")
    file.only(thresholding=False)
    spaced = _spacing(file, "leading", {"leading": "leading", "trailing": "trailing"})
    final = "data" if file.take("set_alpha_to_one", True) else "table"
    return Schedule(_table(file, 0.0), _kind(file), _sampler(solver="euler", final=final, **spaced))


def _multistep(file: SchedulerFile) -> None:
    file.only(
        solver_order=2, algorithm_type="dpmsolver++", solver_type="midpoint", lower_order_final=True
    )
    file.only(thresholding=False)
    file.take("euler_at_final", False)  # the last step is of first order in either case


def _dpm(file: SchedulerFile, *_: str) -> Schedule:
    _multistep(file)
    file.only(
        use_karras_sigmas=False,
        use_exponential_sigmas=False,
        use_beta_sigmas=False,
        use_lu_lambdas=False,
    )
    file.only(
        use_flow_sigmas=False,
        final_sigmas_type="zero",
        variance_type=None,
        use_dynamic_shifting=False,
    )
    spacings = {"leading": "leading_open", "trailing": "trailing", "linspace": "linspace_open"}
    return Schedule(
        _table(file, TERMINAL),
        _kind(file),
        _sampler(solver="dpmpp_2m", **_spacing(file, "linspace", spacings)),
    )


def _edm(file: SchedulerFile, solver: str) -> Schedule:
    file.only(rho=7.0, final_sigmas_type="zero")
    low, high, data = (
        file.number(key, value)
        for key, value in (("sigma_min", 0.002), ("sigma_max", 80.0), ("sigma_data", 0.5))
    )
    sigmas = {"karras": "karras", "exponential": "exponential"}
    # diffusers' first noise, as the network reads it
    start = math.sqrt((high**2 + 1) / (high**2 + data**2))
    chosen = file.choice("sigma_schedule", "karras", sigmas)
    sampler = _sampler(solver=solver, start=start, spacing="whole", sigmas=chosen)
    kind = file.choice("prediction_type", "epsilon", {"epsilon": "epsilon", "v_prediction": "v"})
    return Schedule(
        ("edm", {"sigma_min": low, "sigma_max": high, "sigma_data": data}), kind, sampler, data
    )


def _edm_euler(file: SchedulerFile, *_: str) -> Schedule:
    return _edm(file, "euler")


def _edm_dpm(file: SchedulerFile, *_: str) -> Schedule:
    _multistep(file)
    return _edm(file, "dpmpp_2m")


def _kind(file: SchedulerFile) -> str:
    return file.choice("prediction_type", "epsilon", KINDS)


def _sampler(**settings: Any) -> dict[str, Any]:
    """Everything of the sampler but its steps, as the YAML of a family leaves it open."""
    usual = {
        "shift": 1.0,
        "toward": "noise",
        "offset": 1,
        "sigmas": "spaced",
        "final": "data",
        "start": "unit",
    }
    return {**usual, **settings}


READERS = {
    "FlowMatchEulerDiscreteScheduler": _flow,
    "EulerDiscreteScheduler": _euler,
    "EulerAncestralDiscreteScheduler": _ancestral,
    "DDIMScheduler": _ddim,
    "DPMSolverMultistepScheduler": _dpm,
    "EDMEulerScheduler": _edm_euler,
    "EDMDPMSolverMultistepScheduler": _edm_dpm,
}
