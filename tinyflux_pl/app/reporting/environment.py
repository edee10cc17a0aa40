"""Software and hardware of a run's start, saved in its folder for the report."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from pathlib import Path

import torch

from tinyflux_pl.core import files
from tinyflux_pl.inference.provenance import device_name, versions

FILE = "environment.json"
LIBRARIES = ("tinyflux_pl", "torch", "lightning", "hydra-core", "numpy", "diffusers")
LIBRARIES += ("transformers", "safetensors")


def save(run_dir: Path, device: str) -> None:
    """Write environment.json; a later start of the run replaces it."""
    content = {
        "started": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "device": device_name(torch.device(device)),
        "system": f"{platform.system()} {platform.release()} ({platform.machine()})",
        "python": platform.python_version(),
        "versions": versions(LIBRARIES),
    }
    files.write_json(run_dir / FILE, content)
