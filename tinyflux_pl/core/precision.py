"""Number formats by what the processor does well."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

DTYPES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def choose(precision: str, accelerator: str) -> str:
    """Lightning's precision flag; `auto` is bf16-mixed where bf16 products are native, else 32-true.

    On a CPU with AVX512-BF16 or AMX, bf16 matrix products run 4 to 5 times faster than fp32;
    without them they are emulated and slower.
    """
    if precision != "auto":
        return precision
    if accelerator == "cpu":
        capable = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    else:
        capable = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return "bf16-mixed" if capable else "32-true"


def autocast(precision: str, device: torch.device | str) -> AbstractContextManager[object]:
    """Autocast for a mixed precision, nothing for a true one."""
    if precision not in DTYPES:
        return nullcontext()
    return torch.autocast(torch.device(device).type, DTYPES[precision])
