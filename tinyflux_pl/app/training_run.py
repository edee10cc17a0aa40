"""A run of training: denoiser, objective, data, callbacks and trainer, wired together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from tinyflux_pl.app import prompts as drawn_prompts
from tinyflux_pl.app import resume as resumption
from tinyflux_pl.app import source_captions as training_captions
from tinyflux_pl.app.caches.sources import Source, datasets
from tinyflux_pl.app.components import Parts
from tinyflux_pl.app.trainable import Learner
from tinyflux_pl.checkpoints.directory import Checkpoint
from tinyflux_pl.config import redact
from tinyflux_pl.config.build import build
from tinyflux_pl.core import fingerprint
from tinyflux_pl.core.errors import ConfigError


class Fitting:
    """One run over prepared sources, from a checkpoint if there is one."""

    def __init__(self, parts: Parts, sources: list[Source], resumed: Checkpoint | None) -> None:
        from tinyflux_pl.training.preemption import Preemption
        from tinyflux_pl.training.throughput import Throughput
        from tinyflux_pl.training.trainer import make_trainer

        self.parts, self.sources, self.config, self.resumed = parts, sources, parts.config, resumed
        config, hardware = self.config, self.config["hardware"]
        self.run_dir, self.image_size = Path(config["run_dir"]), parts.image_size
        self.start = 0 if resumed is None else resumed.step
        learner = Learner.of(parts, self.run_dir, self.start, compiled=hardware["compile"])
        self.denoiser, self.average, self.module = learner.denoiser, learner.average, learner.module
        resume = self._resume()
        self.data = self._data()
        shown = drawn_prompts.pictures_of_previews(config, sources, self.data.validation)
        self.sampler = replace(parts.sampler(self.image_size), told=shown)
        self.throughput = Throughput()
        self.checkpoints, self.preview = self._checkpoint_schedule(), self._preview()
        self.validation = self._validation()
        logged, bar = self._log()
        self.trainer = make_trainer(
            hardware,
            run_dir=str(self.run_dir),
            # In this order: what settles a step, what may end the run there, what works with the step.
            callbacks=[
                *(self.average, *resume, self.throughput, logged, learner.guard),
                *(Preemption(self.checkpoints), self.checkpoints, self.preview, self.validation, bar),
            ],
            loggers=self._loggers(),
        )

    def fit(self) -> None:
        """Take the steps that are left; every rank takes part."""
        if self.start < self.config["steps"]:
            self.trainer.fit(self.module, self.data)

    @property
    def last_checkpoint(self) -> Path:
        """Of the last step."""
        return self.checkpoints.last or self.resumed.path

    def _resume(self) -> list[Any]:
        from tinyflux_pl.training.resume import Resume

        if self.resumed is None:
            return []
        resumption.require_same_data(self.resumed, self._caches(), self.config["resume_changed"])
        return [Resume(self.resumed, self.denoiser, self.average)]

    def _caches(self) -> dict[str, str]:
        """What this run trains on: source -> a hash of its samples and of how they were encoded."""
        found = {}
        for source in self.sources:
            store = source.train.store
            groups = {name: store.groups()[name] for name in source.train.groups}
            found[source.name] = fingerprint.hash_json({"records": store.records, "total": store.total, **groups})[:12]
        return found

    def _data(self) -> Any:
        from tinyflux_pl.training.datamodule import CachedLatents

        config, hardware, sources = self.config, self.config["hardware"], self.sources
        train, validation = datasets(sources, config["data"]["in_memory"])
        micro_batch, odd = divmod(hardware["batch_size"], hardware["accumulation"])
        if odd or not micro_batch:
            raise ConfigError(
                f"{hardware['accumulation']} micro-batches do not make a batch of {hardware['batch_size']}",
                where="hardware.accumulation",
                cure="choose a batch_size that accumulation divides",
            )
        return CachedLatents(
            train,
            validation,
            micro_batch,
            stop_step=config["steps"],
            start_step=self.start,
            accumulation=hardware["accumulation"],
            seed=config["seed"],
            workers=hardware["workers"],
            lengths=[len(source.train.store) for source in sources],
            weights=[source.weight for source in sources] if len(sources) > 1 else None,
        )

    def _checkpoint_schedule(self) -> Any:
        from tinyflux_pl.training.checkpoint_schedule import CheckpointSchedule

        described = {**self.parts.description(self.denoiser, self.image_size), "caches": self._caches()}
        if self.parts.text.condition_argument is None:  # else captions only name pairs
            described["captions"] = training_captions.of(self.sources).plain()
        chosen, per_epoch = self.config["callbacks"]["checkpoint"], self.data.steps_per_epoch
        return CheckpointSchedule(self.run_dir / "checkpoints", described, self.average, per_epoch, **chosen)

    def _preview(self) -> Any:
        from tinyflux_pl.data.tasks.prompt_accuracy import PromptAccuracy
        from tinyflux_pl.data.training_captions import readable
        from tinyflux_pl.training.preview import Preview

        records = self.sources[0].train.records
        # One verifier cannot read the pictures of several sources.
        verifier = records.verifier() if len(self.sources) == 1 else None
        metric = None if verifier is None else PromptAccuracy(verifier, alone=True)
        prompts = drawn_prompts.for_previews(self.config, self.sources)
        every, folder = self.config["callbacks"]["preview"]["every_steps"], self.run_dir / "samples"
        measured = None if metric is None else readable(records, prompts)
        if measured is not None and len(measured) < len(prompts):
            count = f"{len(prompts) - len(measured)} of {len(prompts)}"
            print(f"previews: {count} prompts are drawn but not measured, since the data's verifier cannot read them")
        return Preview(
            folder,
            self.sampler,
            prompts,
            self.average,
            metric,
            every,
            self.config["seed"],
            records.pictures,
            measured,
            drawn_prompts.own_pictures(self.sources, prompts),
        )

    def _validation(self) -> Any:
        from tinyflux_pl.objectives.validation import FixedGrid
        from tinyflux_pl.training.validation import Validation

        chosen = self.config["callbacks"]["validation"]
        grid = FixedGrid(chosen["times"], self.config["seed"])
        return Validation(grid, self.data, self.average, chosen["every_steps"])

    def _log(self) -> tuple[Any, Any]:
        from tinyflux_pl.training.logged_metrics import LoggedMetrics
        from tinyflux_pl.training.progress_bar import RunBar

        logged = LoggedMetrics(self.config["callbacks"]["log_every_steps"], self.throughput)
        return logged, RunBar(self.config["steps"], logged)

    def _loggers(self) -> list[Any]:
        """In the run's folder. The CSV file goes on where the checkpoint was; others write beside what was there."""
        from tinyflux_pl.training.metrics_file import MetricsFile

        loggers = []
        for node in self.config["logger"].values():
            later = {"version": f"{node['version']}_from_{self.start:07d}"} if self.start and "version" in node else {}
            loggers.append(build({**node, "save_dir": str(self.run_dir), **later}))
            if isinstance(loggers[-1], MetricsFile):
                loggers[-1].continue_from(self.start)
            loggers[-1].log_hyperparams(redact.redact_data(self.config))  # each job of a sweep has its own
        return loggers
