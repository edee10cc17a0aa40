"""Defaults for the C library and OpenMP, set before torch loads unless the user has set them."""

from __future__ import annotations

import ctypes
import os
from collections.abc import MutableMapping

SPINS = 1000  # turns of a loop in which a waiting thread watches for work before it sleeps
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
LARGEST_FROM_HEAP = 2**25  # bytes; the most that glibc takes for M_MMAP_THRESHOLD
MAX_FREE_HEAP = 2**29  # bytes at the end of the heap that are not given back
WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
WAITING_OF = "KMP_"  # LLVM's and Intel's OpenMP
ALLOCATING = ("GLIBC_TUNABLES", "LD_PRELOAD")
ALLOCATING_OF = "MALLOC_"  # glibc's own variables

_done: list[str] = []


def apply(environment: MutableMapping[str, str] = os.environ) -> list[str]:
    """Set unset variables, once; return a description of the settings in force.

    Threads that spin for long take the processor from other processes, and from each other. Pages
    that are returned after every step are requested, and cleared, again in the next.
    """
    if _done:
        return list(_done)
    waiting = _set_by_user(environment, WAITING, WAITING_OF)
    if not waiting:
        environment["GOMP_SPINCOUNT"] = str(SPINS)
    _done.append(f"threads that wait: {waiting or f'GOMP_SPINCOUNT={SPINS} (set here)'}")
    allocating = _set_by_user(environment, ALLOCATING, ALLOCATING_OF)
    if allocating:
        _done.append(f"freed memory: as {allocating} says")
    elif _keep_pages():
        _done.append("freed memory: kept for the next step (glibc's mallopt, set here)")
    else:
        _done.append("freed memory: as the C library does it")
    return list(_done)


def _set_by_user(environment: MutableMapping[str, str], names: tuple[str, ...], prefix: str) -> str:
    """The variables of these names that the user has set, as NAME=VALUE."""
    variables = [name for name in sorted(environment) if name in names or name.startswith(prefix)]
    return ", ".join(f"{name}={environment[name]}" for name in variables)


def _keep_pages() -> bool:
    """Configure glibc to keep freed pages; False with another C library."""
    try:
        if not (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc"):
            return False
        library = ctypes.CDLL(None)
        return all(
            library.mallopt(option, value) == 1
            for option, value in (
                (M_MMAP_THRESHOLD, LARGEST_FROM_HEAP),
                (M_TRIM_THRESHOLD, MAX_FREE_HEAP),
            )
        )
    except (AttributeError, OSError, ValueError):
        return False
