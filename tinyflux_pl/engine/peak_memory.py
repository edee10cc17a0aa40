"""Free memory of a device, and the peak that a block of work allocates."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

STATUS, MEMORY = Path("/proc/self/status"), Path("/proc/meminfo")
CGROUPS, PROCESS_CGROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
# (limit, in use) of a control group, in its second and in its first version
LIMITS = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))


@dataclass
class Measured:
    """Peak bytes beyond those in use at the start; None where the system has no counter."""

    bytes: int | None = None


@contextmanager
def measured(device: torch.device | str) -> Generator[Measured]:
    """Measure the peak memory of the block: the allocator's, or on a CPU resident memory.

    The latter is Linux's VmHWM, reset at the start, after freed memory is returned to the system:
    memory cached by the allocator would hide what the block takes. Both counters belong to the
    process.
    """
    peak = Measured()
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        yield peak
        torch.cuda.synchronize()
        peak.bytes = torch.cuda.max_memory_allocated() - before
        return
    has_counter = _reset_peak()
    before = _resident("VmRSS") if has_counter else 0
    yield peak
    peak.bytes = max(0, _resident("VmHWM") - before) if has_counter else None


def available_bytes(device: torch.device | str) -> int:
    """Bytes that this process may still allocate.

    On a CPU within the limits of its control groups.
    """
    if torch.device(device).type == "cuda":
        free, _ = torch.cuda.mem_get_info()
        return free + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    if torch.device(device).type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    if MEMORY.exists():
        match = re.search(r"^MemAvailable:\s+(\d+) kB", MEMORY.read_text(), re.M)
        free = int(match[1]) * 1024 if match else _physical()
    else:
        free = _physical()
    return min([free, *(left for _, left in _group_limits())])


def total_bytes(device: torch.device | str) -> int:
    """Total bytes of memory of the device; on a CPU within the limits of its control groups."""
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    if kind == "mps":
        return torch.mps.recommended_max_memory()
    return min([_physical(), *(most for most, _ in _group_limits())])


def _physical() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _group_limits() -> list[tuple[int, int]]:
    """(limit, bytes left) of each control group of this process."""
    limits = []
    for line in PROCESS_CGROUP.read_text().splitlines() if PROCESS_CGROUP.exists() else []:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        folder = CGROUPS / controllers / path.lstrip("/")
        for group in (folder, *folder.parents):
            if not group.is_relative_to(CGROUPS):
                break
            for limit, used in LIMITS:
                if (group / limit).is_file() and (group / used).is_file():
                    text = (group / limit).read_text().strip()
                    if text.isdigit():
                        in_use = int((group / used).read_text()) - _reclaimable(group)
                        limits.append((int(text), max(0, int(text) - in_use)))
    return limits


def _reclaimable(group: Path) -> int:
    """Bytes of cached files, which count as used but can be reclaimed."""
    if not (group / "memory.stat").is_file():
        return 0
    statistics = (group / "memory.stat").read_text()
    match = re.search(r"^(?:total_)?inactive_file (\d+)", statistics, re.M)
    return int(match[1]) if match else 0


def _resident(field: str) -> int:
    match = re.search(rf"^{field}:\s+(\d+) kB", STATUS.read_text(), re.M)
    return int(match[1]) * 1024 if match else 0


def _reset_peak() -> bool:
    """Reset the peak; False where it cannot be (needs Linux 4.0 and glibc's malloc_trim)."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError):
        return False
    return True
