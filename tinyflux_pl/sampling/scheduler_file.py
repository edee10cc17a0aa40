"""A release's scheduler_config.json; settings that are not read are reported."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.unused_settings import name_unread

CURE = (
    "set the sampler yourself: sampler=euler path=vp model.prediction=epsilon, or what the release "
    "needs"
)
# Written by every scheduler of diffusers, read by none of those that are followed here.
HARMLESS = frozenset(
    [
        "clip_sample",
        "clip_sample_range",
        "sample_max_value",
        "set_alpha_to_one",
        "skip_prk_steps",
        "dynamic_thresholding_ratio",
        "interpolation_type",
        "trained_betas",
        "variance_type",
        "use_lu_lambdas",
        "use_flow_sigmas",
        "flow_shift",
        "lambda_min_clipped",
        "timestep_type",
        "sigma_min",
        "sigma_max",
        "thresholding",
        "base_shift",
        "max_shift",
        "base_image_seq_len",
        "max_image_seq_len",
        "time_shift_type",
        "use_beta_sigmas",
        "use_exponential_sigmas",
        "use_karras_sigmas",
        "use_dynamic_shifting",
        "steps_offset",
        "rescale_betas_zero_snr",
        "solver_order",
        "solver_type",
        "algorithm_type",
        "lower_order_final",
        "euler_at_final",
    ]
)


@dataclass
class SchedulerFile:
    """The settings of one scheduler, each read once; `close` reports the rest."""

    kind: str
    settings: Mapping[str, Any]
    where: str
    seen: set[str] = field(default_factory=set)

    def take(self, key: str, default: Any) -> Any:
        """A setting; diffusers' default if it is missing or null."""
        self.seen.add(key)
        value = self.settings.get(key)
        return default if value is None else value

    def number(self, key: str, default: float) -> float:
        """A finite number; ConfigError for anything else."""
        value = self.take(key, default)
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
        ):
            raise self.refused(key, value, "")
        return value

    def choice(self, key: str, default: str, choices: Mapping[str, Any]) -> Any:
        """One of the supported values; ConfigError for another."""
        value = self.take(key, default)
        if not isinstance(value, str) or value not in choices:
            raise self.refused(key, value, f" (of {', '.join(choices)})")
        return choices[value]

    def only(self, **neutral: Any) -> None:
        """Raise ConfigError for settings that differ from these, the only supported values."""
        for key, value in neutral.items():
            setting = self.take(key, value)
            if setting != value:
                raise self.refused(key, setting, "")

    def refused(self, key: str, value: Any, more: str) -> ConfigError:
        return ConfigError(
            f"{self.kind}: {key}={str(value)[:60]} is not supported{more}",
            where=self.where,
            cure=CURE,
        )

    def close(self) -> None:
        """Report unread settings, except those that such schedulers never read."""
        unread = {key for key in self.settings if not key.startswith("_")} - self.seen - HARMLESS
        name_unread(unread, self.where)
