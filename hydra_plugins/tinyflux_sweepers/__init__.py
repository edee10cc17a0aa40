"""Hydra's entrance to our sweepers: it builds none but those of hydra_plugins.

Read at every start of a Hydra program, so everything else is imported when a sweep begins.
"""

from __future__ import annotations

from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper


class Combinations(BasicSweeper):
    """Every combination of the swept values, as Hydra's own sweeper, with a table."""

    def sweep(self, arguments: list[str]) -> Any:
        from tinyflux_pl.app.sweeps import combinations

        return combinations.sweep(self, arguments)


class Search(Sweeper):
    """An Optuna study over the swept values."""

    def __init__(self, **options: Any) -> None:
        self.options = options

    def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:
        self.config = config
        self.hydra_context = hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        from tinyflux_pl.app.sweeps import search

        return search.sweep(self, self.options, arguments)
