"""Number formats: the fast ones of a processor, autocast, and checks of dtype names."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache

import torch

from tinyflux_pl.core.errors import ConfigError

DTYPES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
WEIGHTS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose(precision: str, accelerator: str) -> str:
    """Lightning's precision flag.

    `auto` is bf16-mixed where bf16 products are native, else 32-true.

    On a CPU with AVX512-BF16 or AMX, bf16 matrix products run 4 to 5 times faster than fp32;
    without them they are emulated and slower.
    """
    if precision != "auto":
        return precision
    return "bf16-mixed" if has_fast_bf16(accelerator) else "32-true"


@cache
def has_fast_bf16(device_type: str) -> bool:
    """True where the processor multiplies bf16 matrices in hardware.

    Where it does not, the same product in bf16 takes up to 29 times as long as in fp32 (measured
    on a CPU with AVX2 alone). CUDA devices before Ampere report bf16, but emulate it.
    """
    if device_type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)


def autocast(precision: str, device: torch.device | str) -> AbstractContextManager[object]:
    """Autocast for a mixed precision, nothing for a true one."""
    if precision not in DTYPES:
        return nullcontext()
    return torch.autocast(torch.device(device).type, DTYPES[precision])


def no_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Disable autocast; a no-op on the meta device, which has none."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def check_dtype(dtype: str, where: str, overflows: str = "") -> torch.dtype:
    """The torch type of that name.

    ConfigError for an unknown name, and for float16 if `overflows`.
    """
    if dtype not in WEIGHTS:
        raise ConfigError(f"no dtype {dtype!r}", where=where, cure=f"one of {', '.join(WEIGHTS)}")
    if dtype == "float16" and overflows:
        raise ConfigError(
            f"float16 overflows: {overflows}", where=where, cure=f"{where}=bfloat16, or float32"
        )
    return WEIGHTS[dtype]


def check_mixed(precision: str, overflows: str) -> str:
    """Return the precision; ConfigError for float16 if `overflows` gives a reason."""
    if precision in ("16-mixed", "16-true") and overflows:
        cure = "hardware.precision=bf16-mixed, or 32-true"
        raise ConfigError(f"float16 overflows: {overflows}", where="hardware.precision", cure=cure)
    return precision
