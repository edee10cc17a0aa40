"""One run of training, from prepared sources to measured results."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tinyflux_pl.app.compose import build
from tinyflux_pl.app.parts import Parts
from tinyflux_pl.app.sources import Source, datasets, skipped
from tinyflux_pl.checkpoints import directory
from tinyflux_pl.core.errors import ConfigError, CorruptCheckpoint


class Fitting:
    """Denoiser, objective, data, callbacks and trainer of a run, wired together."""

    def __init__(self, parts: Parts, sources: list[Source], started: float) -> None:
        from tinyflux_pl.objectives.validation import FixedGrid
        from tinyflux_pl.training.datamodule import CachedLatents
        from tinyflux_pl.training.ema import AveragedWeights
        from tinyflux_pl.training.flow_module import FlowModule
        from tinyflux_pl.training.throughput import Throughput
        from tinyflux_pl.training.trainer import make_trainer

        self.parts, self.sources, self.config, self.started = parts, sources, parts.config, started
        config, callbacks = self.config, self.config["callbacks"]
        self.run_dir, hardware = Path(config["run_dir"]), config["hardware"]
        self.image_size = parts.image_size
        self.denoiser = parts.denoiser()
        if hardware["gradient_checkpointing"]:
            self.denoiser.enable_gradient_checkpointing()
        if hardware["compile"]:
            self.denoiser.compile()
        self.average = AveragedWeights(**callbacks["ema"])
        resumed, start = self._resume()
        train, validation = datasets(sources, config["data"]["in_memory"])
        micro_batch, odd = divmod(hardware["batch_size"], hardware["accumulation"])
        if odd or not micro_batch:
            raise ConfigError(
                f"{hardware['accumulation']} micro-batches do not make a batch of {hardware['batch_size']}",
                where="hardware.accumulation",
                cure="choose a batch_size that accumulation divides",
            )
        self.data = CachedLatents(
            train,
            validation,
            micro_batch,
            stop_step=config["steps"],
            start_step=start,
            accumulation=hardware["accumulation"],
            seed=config["seed"],
            workers=hardware["workers"],
            lengths=[len(source.stores["train"]) for source in sources],
            weights=[source.weight for source in sources] if len(sources) > 1 else None,
        )
        experts = list(parts.experts.values())
        objective = build(
            config["objective"], timesteps=build(config["timesteps"]), null_text=parts.text.null(), experts=experts
        )
        grid = FixedGrid(callbacks["validation"]["times"], config["seed"])
        schedule, optimizer = build(config["schedule"]), build(config["optimizer"])
        self.module = FlowModule(self.denoiser, objective, grid, optimizer, schedule, start)
        self.sampler = parts.sampler(self.image_size)
        self.throughput = Throughput()
        self.checkpoints = self._checkpoint_schedule(micro_batch * hardware["accumulation"], len(train))
        self.trainer = make_trainer(
            hardware,
            run_dir=str(self.run_dir),
            steps=config["steps"] - start,
            validate_every=callbacks["validation"]["every_steps"],
            log_every=callbacks["log_every_steps"],
            callbacks=[self.average, *resumed, self.throughput, self.checkpoints, self._preview()],
            loggers=[build(_logger(node, str(self.run_dir), start)) for node in config["logger"].values()],
        )

    def fit(self) -> None:
        """Train, and validate the end once more; every rank takes part."""
        self.trainer.fit(self.module, self.data)
        self.trainer.validate(self.module, self.data, verbose=False)

    def evaluate(self) -> dict[str, Any]:
        """The last picture and prompt accuracy by split: what results.json holds. For one rank."""
        from tinyflux_pl.training.evaluation import prompt_accuracy
        from tinyflux_pl.training.throughput import peak_memory_bytes

        loss = float(self.trainer.callback_metrics["validation/loss"])
        self.denoiser.to(self.parts.device)  # Lightning has taken it off the device
        preview = next(c for c in self.trainer.callbacks if type(c).__name__ == "Preview")
        picture = preview.draw(self.trainer, self.module, self.config["steps"])
        accuracies: dict[str, Any] = {}
        novelty: dict[str, Any] = {}
        for source in self.sources:
            records = source.records["train"]
            for split, prompts in self._evaluation_prompts(records).items():
                name, seed = f"{source.name}/{split}", self.config["seed"]
                with self._autocast(), self.average.applied(self.denoiser.eval()):
                    accuracies[name], images = prompt_accuracy(
                        self.denoiser, self.sampler, records.verifier(), prompts, seed=seed, title=f"draw {name}"
                    )
                if hasattr(records, "novelty"):
                    novelty[name] = records.novelty(images)
        return {
            "seconds": round(time.perf_counter() - self.started, 1),
            "novelty": novelty,
            "steps": self.config["steps"],
            "parameters": sum(p.numel() for p in self.denoiser.parameters()),
            "images_per_second": round(self.throughput.images_per_second, 1),
            "validation_loss": loss,
            "prompt_accuracy": _first(accuracies, "train"),
            "prompt_accuracy_held_out": _first(accuracies, "held_out"),
            "accuracies": accuracies,
            "peak_memory_bytes": peak_memory_bytes(),
            "checkpoint": str(self.checkpoints.last),
            "samples": str(picture),
            "prompts": preview.prompts,
            "model": self.config["model"],
            "experts": sorted(self.parts.experts),
            "skipped": skipped(self.sources),
            "data": self.config["data"]["name"],
            "seed": self.config["seed"],
        }

    def _autocast(self) -> Any:
        from tinyflux_pl.core import precision as formats

        return formats.autocast(self.parts.precision, next(self.denoiser.parameters()).device)

    def _resume(self) -> tuple[list[Any], int]:
        from tinyflux_pl.training.resume import Resume

        asked = self.config["resume"]
        if not asked:
            return [], 0
        if asked == "auto":
            found, rejected = directory.newest_valid(self.run_dir / "checkpoints")
            for line in rejected:
                print(f"skipped {line}")
            if found is None:
                raise CorruptCheckpoint(
                    "no valid checkpoint to resume", where=str(self.run_dir), cure="start anew: leave resume= out"
                )
        else:
            found = directory.read(asked)
        print(f"resuming {found.path} at step {found.step}")
        return [Resume(found, self.denoiser, self.average)], found.step

    def _checkpoint_schedule(self, batch_size: int, samples: int) -> Any:
        from tinyflux_pl.training.checkpoint_schedule import CheckpointSchedule

        description = self.parts.description(self.denoiser, self.image_size)
        per_epoch = max(1, samples // batch_size)
        folder = self.run_dir / "checkpoints"
        return CheckpointSchedule(
            folder, description, self.average, per_epoch, **self.config["callbacks"]["checkpoint"]
        )

    def _preview(self) -> Any:
        from tinyflux_pl.data.prompt_accuracy import PromptAccuracy
        from tinyflux_pl.training.preview import Preview

        chosen = self.config["callbacks"]["preview"]
        records = self.sources[0].records["train"]
        # One verifier cannot read the pictures of several sources.
        readable = len(self.sources) == 1 and hasattr(records, "verifier")
        metric = PromptAccuracy(records.verifier()) if readable else None
        prompts = self._preview_prompts(chosen["count"])
        every, folder = chosen["every_steps"], self.run_dir / "samples"
        return Preview(folder, self.sampler, prompts, self.average, metric, every, self.config["seed"])

    def _preview_prompts(self, count: int) -> list[str]:
        if chosen := self.config["callbacks"]["preview"].get("prompts"):
            return list(chosen)
        per_source = -(-count // len(self.sources))
        prompts: list[str] = []
        for source in self.sources:
            records = source.records["train"]
            if hasattr(records, "prompt_splits"):
                prompts += records.prompts(per_source, records.prompt_splits[0], self.config["seed"])
            else:
                store = source.stores["validation"]
                prompts += store.captions(list(range(min(per_source, len(store)))))
        return prompts[:count]

    def _evaluation_prompts(self, records: Any) -> dict[str, list[str]]:
        count = self.config["data"]["evaluation_prompts"]
        if not count or not hasattr(records, "prompt_splits"):
            return {}
        return {split: records.prompts(count, split, self.config["seed"] + 1) for split in records.prompt_splits}


def _logger(node: dict[str, Any], run_dir: str, start: int) -> dict[str, Any]:
    """In the run's folder; a resumed run writes beside what was logged before, never over it."""
    versioned = {"version": f"{node['version']}_from_{start:07d}"} if start and "version" in node else {}
    return {**node, "save_dir": run_dir, **versioned}


def _first(accuracies: dict[str, dict[str, float]], split: str) -> float | None:
    return next((found["all"] for name, found in accuracies.items() if name.endswith(f"/{split}")), None)
