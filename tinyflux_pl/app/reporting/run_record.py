"""The record of a run for its loggers: identity, configuration, provenance, results, ending."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tinyflux_pl.app.fitting.training_run import TrainingRun, cache_fingerprints
from tinyflux_pl.app.reporting.git_state import git_state
from tinyflux_pl.config import redact
from tinyflux_pl.core import files, fingerprint
from tinyflux_pl.core import metric_names as names
from tinyflux_pl.core.errors import Interrupted, Pruned, TinyFluxError
from tinyflux_pl.core.rank import is_rank_zero

if TYPE_CHECKING:
    from tinyflux_pl.app.preflight.tables import Table
    from tinyflux_pl.training.run_identity import Identity
    from tinyflux_pl.training.run_logger import Ending, RunLogger

PROVENANCE = "provenance.json"
WANDB_RUN_ID = "WANDB_RUN_ID"  # set by W&B's agent for the run that it starts
ID_BYTES = 4


def identity(run: TrainingRun) -> Identity:
    """The identity of the run whose checkpoints lie in the folder, else a new one.

    A job of a sweep is named by the overrides that the sweep chose, and grouped by the sweep.
    """
    from tinyflux_pl.training.run_identity import Identity, saved_identity

    config, resume = run.parts.config, run.callbacks.resume
    saved = None if resume is None else saved_identity(resume.saved_state)
    if saved is not None and resume is not None and run.run_dir.resolve() in resume.origins:
        return saved
    started_by_agent = None if config.sweep else os.environ.get(WANDB_RUN_ID)
    return Identity(
        name=",".join(config.swept) or str(config.run),
        id=started_by_agent or secrets.token_hex(ID_BYTES),
        group=config.sweep,
        tags=(config.data.name, *(sorted(config.experts) or ["no experts"])),
    )


def flat(node: Any, key: str = "") -> Iterator[tuple[str, str | int | float | bool | None]]:
    """(key with slashes, plain value) of nested containers; lists and empty ones as JSON text."""
    if isinstance(node, Mapping) and (node or not key):
        for name, value in node.items():
            yield from flat(value, f"{key}/{name}" if key else str(name))
    elif isinstance(node, Mapping | list | tuple):
        yield key, json.dumps(node, separators=(",", ":"))
    else:
        yield key, node


def provenance(run: TrainingRun) -> dict[str, str | int | bool | None]:
    """Git state, fingerprints of data and caches by source, and counts of parameters."""
    facts: dict[str, str | int | bool | None] = dict(git_state())
    caches = cache_fingerprints(run.sources)
    for source in run.sources:
        records = source.train.records.fingerprint()
        facts[f"data/{source.name}"] = fingerprint.hash_json(records)[:12]
        facts[f"cache/{source.name}"] = caches[source.name]
    parameters = list(run.trainable.denoiser.parameters())
    facts["parameters"] = sum(p.numel() for p in parameters)
    facts["trainable_parameters"] = sum(p.numel() for p in parameters if p.requires_grad)
    return facts


def summary(results: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of results.json by catalogued name."""
    return {
        name: float(value)
        for name, value in _numbers(results, names.RESULTS)
        if names.find(name) is not None
    }


def _numbers(node: Any, name: str) -> Iterator[tuple[str, float]]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _numbers(value, f"{name}/{key}")
    elif isinstance(node, int | float) and not isinstance(node, bool):
        yield name, node


@contextmanager
def recorded(run: TrainingRun, tables: Sequence[Table] = ()) -> Generator[None]:
    """Open the records of the run's loggers, and close them with the final state of the block.

    `tables` are those of the preflight. The run's folder gets provenance.json.
    """
    from tinyflux_pl.training.run_logger import Ending, run_loggers

    loggers = run_loggers(run.trainer)
    if is_rank_zero():
        _begin(run, loggers, tables)
    ending: Ending | None = None
    try:
        yield
    except BaseException as error:
        ending = _ending(error)
        raise
    finally:
        for logger in loggers:
            logger.finish(ending or Ending("finished"))


def log_results(run: TrainingRun, results: Mapping[str, Any]) -> None:
    """Pass the final results to the run's loggers."""
    from tinyflux_pl.training.run_logger import run_loggers

    for logger in run_loggers(run.trainer):
        logger.log_results(summary(results))


def _begin(run: TrainingRun, loggers: Sequence[RunLogger], tables: Sequence[Table]) -> None:
    from tinyflux_pl.training.run_identity import RunIdentity
    from tinyflux_pl.training.run_logger import RunFacts

    facts = provenance(run)
    files.write_json(run.run_dir / PROVENANCE, facts)
    if not loggers:
        return
    config = run.parts.config
    run_identity = identity(run)
    for logger in loggers:
        logger.begin(
            RunFacts(
                identity=run_identity,
                configuration=dict(flat(redact.redact_data(config.plain))),
                provenance=facts,
                tables=[(table.name, table.rows) for table in tables],
            )
        )
    run.trainer.callbacks.append(RunIdentity(run_identity))


def _ending(error: BaseException) -> Ending:
    from tinyflux_pl.training.run_logger import Ending

    stopped = isinstance(error, Interrupted | KeyboardInterrupt)
    state = "pruned" if isinstance(error, Pruned) else "interrupted" if stopped else "failed"
    code = error.exit_code if isinstance(error, TinyFluxError) else 130 if stopped else 1
    text = error.what if isinstance(error, TinyFluxError) else f"{type(error).__name__}: {error}"
    line = redact.redact(text).splitlines()
    return Ending(state, code, line[0] if line else "")
