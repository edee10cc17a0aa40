"""How much memory a device has left, and how much a piece of work took of it."""

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
CGROUPS, OWN_CGROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
# (limit, in use) of a control group, in its second and in its first version
LIMITS = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))


@dataclass
class Measured:
    """Bytes that a piece of work took beyond what was held when it began; None where nothing can tell."""

    bytes: int | None = None


@contextmanager
def measured(device: torch.device | str) -> Generator[Measured]:
    """Measure the block: the allocator's peak on an accelerator, the kernel's peak of resident memory on a CPU.

    The peak of resident memory is Linux's VmHWM, reset at the start, after memory that was freed is given
    back to the system: what an allocator has kept would hide what the work takes. Both are the process's own
    counters, which a later reading starts from.
    """
    found = Measured()
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        yield found
        torch.cuda.synchronize()
        found.bytes = torch.cuda.max_memory_allocated() - held
        return
    reset = _reset_peak()
    held = _resident("VmRSS") if reset else 0
    yield found
    found.bytes = max(0, _resident("VmHWM") - held) if reset else None


def available_bytes(device: torch.device | str) -> int:
    """Bytes that this process may still take on the device; on a CPU the limits of its control groups count."""
    if torch.device(device).type == "cuda":
        free, _ = torch.cuda.mem_get_info()
        return free + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    if torch.device(device).type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    if MEMORY.exists():
        found = re.search(r"^MemAvailable:\s+(\d+) kB", MEMORY.read_text(), re.M)
        free = int(found[1]) * 1024 if found else _physical()
    else:
        free = _physical()
    return min([free, *(left for _, left in _group_limits())])


def total_bytes(device: torch.device | str) -> int:
    """Bytes of memory that the device has, whoever uses them; on a CPU the limits of its control groups count."""
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    if kind == "mps":
        return torch.mps.recommended_max_memory()
    return min([_physical(), *(most for most, _ in _group_limits())])


def _physical() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _group_limits() -> list[tuple[int, int]]:
    """The limit of each control group that holds this process, and what is left below it."""
    found = []
    for line in OWN_CGROUP.read_text().splitlines() if OWN_CGROUP.exists() else []:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        folder = CGROUPS / controllers / path.lstrip("/")
        for group in (folder, *folder.parents):
            if not group.is_relative_to(CGROUPS):
                break
            for limit, used in LIMITS:
                if (group / limit).is_file() and (group / used).is_file():
                    most = (group / limit).read_text().strip()
                    if most.isdigit():
                        in_use = int((group / used).read_text()) - _reclaimable(group)
                        found.append((int(most), max(0, int(most) - in_use)))
    return found


def _reclaimable(group: Path) -> int:
    """Bytes of cached files that count as used and go when they are in the way."""
    if not (group / "memory.stat").is_file():
        return 0
    found = re.search(r"^(?:total_)?inactive_file (\d+)", (group / "memory.stat").read_text(), re.M)
    return int(found[1]) if found else 0


def _resident(field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB", STATUS.read_text(), re.M)
    return int(found[1]) * 1024 if found else 0


def _reset_peak() -> bool:
    """Whether this system has a peak to reset (Linux 4.0, with a C library that gives memory back)."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError):
        return False
    return True
