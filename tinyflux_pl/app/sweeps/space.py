"""The search space of a study, in Hydra's own sweep syntax."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from tinyflux_pl.core.errors import ConfigError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

LOG = "log"


def split(overrides: Sequence[Override]) -> tuple[dict[str, BaseDistribution], list[str]]:
    """(key -> distribution) of the swept overrides, and the lines of the others.

    `choice(a,b)` and `a,b` are categories; `range(0,10,2)` whole numbers, `range(0.0,1.0,0.1)` and
    `interval(0.1,1)` real ones, `int(interval(1,9))` whole ones; `tag(log,interval(1e-4,1e-2))` is
    uniform in the logarithm.
    """
    swept = [override for override in overrides if override.is_sweep_override()]
    space = {override.get_key_element(): distribution(override) for override in swept}
    lines = [o.input_line or "" for o in overrides if not o.is_sweep_override()]
    return space, lines


def distribution(override: Override) -> BaseDistribution:
    """The distribution of one swept override; ConfigError if no sampler can draw from it."""
    from optuna.distributions import CategoricalDistribution

    sweep: Any = override.value()
    if unknown := sorted(set(map(str, sweep.tags)) - {LOG}):
        raise _error(override, f"tag {unknown[0]!r} means nothing here", "tag(log,interval(a,b))")
    log = LOG in set(map(str, sweep.tags))
    if log and not isinstance(sweep, IntervalSweep):
        raise _error(override, "only an interval can be logarithmic", "tag(log,interval(a,b))")
    if isinstance(sweep, IntervalSweep):
        return _interval(override, sweep, log)
    if isinstance(sweep, RangeSweep):
        return _range(override, sweep)
    choices = list(dict.fromkeys(override.sweep_string_iterator()))
    if not choices:
        raise _error(override, "it has no values", "choice(a,b)")
    return CategoricalDistribution(choices)


def line(key: str, value: Any) -> str:
    """The override that sets a key to a value of its distribution."""
    return f"{key}={value if isinstance(value, str) else repr(value)}"


def values(key: str, dist: BaseDistribution) -> list[Any]:
    """Every value of a distribution; ConfigError for an interval of real numbers."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(dist, CategoricalDistribution):
        return list(dist.choices)
    if isinstance(dist, IntDistribution) and not dist.log:
        return list(range(dist.low, dist.high + 1, dist.step))
    if isinstance(dist, FloatDistribution) and dist.step is not None:
        count = round((dist.high - dist.low) / dist.step) + 1
        return [dist.low + i * dist.step for i in range(count)]
    raise ConfigError(
        f"a grid cannot hold every value of {key}",
        where="hydra.sweeper.sampler",
        cure="choice(...) or range(...) for every key, or hydra.sweeper.sampler=tpe",
    )


def _interval(override: Override, sweep: IntervalSweep, log: bool) -> BaseDistribution:
    from optuna.distributions import FloatDistribution, IntDistribution

    low, high = sweep.start, sweep.end
    assert low is not None and high is not None, "Hydra's grammar has both"
    if low >= high or (log and low <= 0):
        cure = "interval(a,b) with a below b, and for tag(log,...) above 0"
        raise _error(override, "no interval to draw from", cure)
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=log)
    return FloatDistribution(float(low), float(high), log=log)


def _range(override: Override, sweep: RangeSweep) -> BaseDistribution:
    from optuna.distributions import FloatDistribution, IntDistribution

    numbers = sorted(sweep.range())
    if not numbers:
        raise _error(override, "it has no values", "range(start,stop,step), without its stop")
    step = abs(sweep.step)
    if all(isinstance(number, int) for number in numbers):
        return IntDistribution(int(numbers[0]), int(numbers[-1]), step=int(step))
    return FloatDistribution(float(numbers[0]), float(numbers[-1]), step=float(step))


def _error(override: Override, what: str, cure: str) -> ConfigError:
    text = f"cannot search {override.input_line}: {what}"
    return ConfigError(text, where=override.get_key_element(), cure=cure)
