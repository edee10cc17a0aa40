"""The study of a search: its file in the sweep's folder, its trials, its sampler and pruner."""

from __future__ import annotations

FILE = "study.journal"
SWEEPER = "hydra_plugins.tinyflux_sweepers.Search"
