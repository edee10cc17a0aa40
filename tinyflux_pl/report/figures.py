"""Numbers as people read them: three or four digits and a unit."""

from __future__ import annotations

import math

MINUS, THIN = "\u2212", "\u202f"
SCALES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))
BINARY = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


def short(value: object, digits: int = 4) -> str:
    """A number with `digits` significant digits; other values as they are; a dash for None."""
    if value is None or value == "":
        return "\u2013"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if not math.isfinite(value):
        return str(value)
    if isinstance(value, int) or (value == int(value) and abs(value) >= 10 ** (digits - 1)):
        return f"{int(value):,}".replace("-", MINUS)
    return f"{value:.{digits}g}".replace("e-0", "e-").replace("e+0", "e").replace("-", MINUS)


def fixed(value: object, digits: int = 4) -> str:
    """A number with exactly `digits` significant digits, for columns and headlines."""
    if not isinstance(value, int | float) or not math.isfinite(value) or abs(value) >= 10**digits:
        return short(value, digits)
    return f"{value:#.{digits}g}".replace("-", MINUS)


def percent(share: object) -> str:
    """A share in [0, 1] as a percentage with one digit behind the point."""
    if not isinstance(share, int | float) or not math.isfinite(share):
        return short(share)
    return f"{100 * share:.1f}{THIN}%"


def count(value: object) -> str:
    """A large number with a prefix: 2.44 M."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return short(value)
    for scale, prefix in SCALES:
        if abs(value) >= scale:
            return f"{value / scale:.3g}{THIN}{prefix}"
    return short(value)


def size(value: object) -> str:
    """Bytes with a binary prefix."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return short(value)
    for scale, unit in BINARY:
        if value >= scale:
            return f"{value / scale:.3g}{THIN}{unit}"
    return f"{value:.0f}{THIN}B"


def duration(seconds: object) -> str:
    """Seconds as 42 s, 10.3 min or 2 h 5 min."""
    if not isinstance(seconds, int | float) or not math.isfinite(seconds):
        return short(seconds)
    if seconds < 60:
        return f"{seconds:.3g}{THIN}s"
    if seconds < 3600:
        return f"{seconds / 60:.3g}{THIN}min"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours:,}{THIN}h {minutes}{THIN}min"


def signed(value: float, digits: int = 3) -> str:
    """A difference with its sign."""
    return short(value, digits) if value <= 0 else f"+{short(value, digits)}"
