"""Previews during training, with the sampler of generate.py and the verifier of the data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from tinyflux_pl.core import metric_names as names
from tinyflux_pl.core import progress
from tinyflux_pl.core.errors import Interrupted
from tinyflux_pl.sampling import described_sheet
from tinyflux_pl.sampling.grid import captioned_grid, paired_grid
from tinyflux_pl.sampling.images import ImageSampler
from tinyflux_pl.training.ema import AveragedWeights
from tinyflux_pl.training.flow_module import FlowModule
from tinyflux_pl.training.metric_log import log_scalars
from tinyflux_pl.training.periodic import Periodic
from tinyflux_pl.training.preemption import poll
from tinyflux_pl.training.run_logger import Samples, run_loggers


class Preview(Periodic):
    """A captioned grid from averaged weights every `every_steps`, with prompt accuracy.

    Runs on rank 0. The accuracy is over the prompts in `measured`, which the metric's verifier can
    read. `pictures` turns samples that are not images into images and captions (sequences).
    `reference_images` (B, 3, H, W) are the data's own images of the prompts, drawn next to the
    samples.
    """

    def __init__(
        self,
        folder: str | Path,
        sampler: ImageSampler,
        prompts: Sequence[str],
        average: AveragedWeights | None,
        metric: Any = None,
        every_steps: int = 500,
        seed: int = 0,
        pictures: Callable[[Any, Sequence[str]], tuple[Any, list[str]]] | None = None,
        measured: Sequence[str] | None = None,
        reference_images: Any = None,
    ) -> None:
        super().__init__(every_steps)
        self.folder = Path(folder)
        self.sampler = sampler
        self.prompts = list(prompts)
        self.average = average
        self.metric = metric
        self.seed = seed
        self.measured = [
            index
            for index, prompt in enumerate(self.prompts)
            if measured is None or prompt in measured
        ]
        self.reference_images = reference_images
        self.pictures = pictures
        self.picture: Path | None = None  # the file of the last preview

    def perform(self, trainer: Trainer, pl_module: FlowModule) -> None:
        if trainer.is_global_zero:
            try:
                self._draw(trainer, pl_module, pl_module.step)
            except Interrupted:
                if trainer.world_size == 1 or not trainer.training:
                    raise
        if trainer.world_size > 1 and trainer.training:
            poll(trainer)
        super().perform(trainer, pl_module)

    def _draw(self, trainer: Trainer, pl_module: FlowModule, step: int) -> None:
        """Sample, save and log a grid; raw weights and training mode are restored."""
        images = self.sample(pl_module, self.prompts)
        self.picture = self.folder / f"step_{step:07d}.png"
        pictures, captions = self._pictured(images)
        if self.reference_images is not None:
            grid = paired_grid(images, self.reference_images, self.prompts)
        else:
            grid = captioned_grid(pictures, captions)
        self.folder.mkdir(parents=True, exist_ok=True)
        described_sheet.save(grid, self.picture)
        line = f"step {step:,}: preview {self.picture}"
        if self.metric is not None and self.measured:
            self.metric.reset()
            prompts = [self.prompts[index] for index in self.measured]
            self.metric.update(images[self.measured], prompts)
            computed = self.metric.compute()
            metrics = {names.ACCURACY.of(claim=k): float(v) for k, v in computed.items()}
            share = metrics[names.ACCURACY.of(claim="all")]
            of_pictures = f"of {len(self.measured)} images match their prompt"
            line = f"{line}; {share:.0%} {of_pictures}"
            reading = self.metric.verifier.reading(images[self.measured])
            if reading is not None:
                by_name = {names.READABLE: reading.readable, names.FIT: reading.fit}
                metrics |= {k.pattern: v for k, v in by_name.items() if v is not None}
            log_scalars(trainer, metrics, step)
        progress.say(line)
        samples = Samples(step, self.seed, captions, pictures, grid)
        for logger in run_loggers(trainer):
            logger.log_samples(samples)

    def _pictured(self, images: Any) -> tuple[Any, list[str]]:
        """The images to draw samples as, and their captions."""
        if self.pictures is None or self.reference_images is not None:
            return images, self.prompts
        return self.pictures(images, self.prompts)

    def sample(self, pl_module: FlowModule, prompts: Sequence[str]) -> Any:
        """Images (N, 3, H, W) from the averaged weights, or the raw ones without averaging."""
        denoiser = pl_module.network
        training = denoiser.training
        denoiser.eval()
        try:
            with pl_module.trainer.precision_plugin.forward_context():
                if self.average is None:
                    return self.sampler.images(denoiser, prompts, seed=self.seed)
                with self.average.applied(denoiser):
                    return self.sampler.images(denoiser, prompts, seed=self.seed)
        finally:
            denoiser.train(training)
