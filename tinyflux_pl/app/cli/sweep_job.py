"""One job of a sweep, in the process of the command or in one that a launcher started."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from tinyflux_pl.app.cli.job_isolation import isolated
from tinyflux_pl.config import command_words
from tinyflux_pl.config.hydra_options import SEARCH
from tinyflux_pl.core import progress
from tinyflux_pl.core.errors import Pruned, TinyFluxError


def run(
    recipe: Callable[[dict[str, Any]], Any], config: Mapping[str, Any], argv: Sequence[str]
) -> Any:
    """Run the recipe isolated and recorded; a pruned trial returns its last metric."""
    from hydra.core.hydra_config import HydraConfig

    from tinyflux_pl.app.sweeps.job import recorded
    from tinyflux_pl.app.sweeps.launch import SWEEP_DIR
    from tinyflux_pl.config import sweep_jobs

    hydra = HydraConfig.get()
    # a job may lie in a folder of its own; the sweep has one
    sweep_dir = Path(os.environ.get(SWEEP_DIR) or str(hydra.sweep.dir))
    number = int(hydra.job.num)
    lines = [str(line) for line in hydra.overrides.task]
    swept = [command_words.override(line) for line in sweep_jobs.swept(lines, argv[1:])]
    job = {**config, "trial": _trial(hydra, sweep_dir, number)}
    job |= {"sweep": sweep_dir.name, "swept": swept}
    folder = Path(config["run_dir"])
    with isolated(), ranks_run_this_job(argv, lines, folder):
        try:
            with recorded(sweep_dir, number, config["overrides"], folder) as outcome:
                outcome.value = recipe(job)
                return outcome.value
        except Pruned as stop:
            progress.say(stop.what)
            return stop.value


@contextmanager
def ranks_run_this_job(argv: Sequence[str], lines: Sequence[str], folder: Path) -> Generator[None]:
    """Inside, Lightning starts the other ranks of a job with a command line for this job alone.

    It repeats the line of the process, which in a sweep would start the sweep once more, and in a
    process of joblib or submitit is none of ours.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.override_parser.types import Quote, QuotedString

    main, holder = sys.modules["__main__"], HydraConfig.instance()
    before = sys.argv, getattr(main, "__spec__", None), holder.cfg
    pairs = [
        word for pair in pairwise(argv[1:]) if pair[0] in command_words.CHOOSING for word in pair
    ]
    run_dir = QuotedString(text=str(folder), quote=Quote.single).with_quotes()
    last = ["hydra.mode=RUN", f"hydra.run.dir={run_dir}"]
    sys.argv, main.__spec__, holder.cfg = [argv[0], *pairs, *lines, *last], None, None
    try:
        yield
    finally:
        sys.argv, main.__spec__, holder.cfg = before


def picklable_error(error: Exception) -> TinyFluxError:
    """The error in a form that can be sent to another process: its message and exit code."""
    plain = TinyFluxError(str(error))
    vars(plain).update(exit_code=getattr(error, "exit_code", 1), reported=True)
    return plain


def _trial(hydra: Any, sweep_dir: Path, number: int) -> dict[str, Any] | None:
    """The study and the number of a trial; None for a job of another sweeper."""
    from tinyflux_pl.app.sweeps.study import FILE

    if hydra.sweeper.get("_target_") != SEARCH:
        return None
    return {"study": str(sweep_dir / FILE), "number": number}
