"""Pictures while training: drawn by the sampler that generate.py uses, read by the same verifier."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from tinyflux_pl.sampling.images import ImageSampler
from tinyflux_pl.sampling.picture import captioned_grid
from tinyflux_pl.training.ema import AveragedWeights


class Preview(Callback):
    """A captioned grid every `every_steps`, from the averaged weights, with prompt accuracy."""

    def __init__(
        self,
        folder: str | Path,
        sampler: ImageSampler,
        prompts: Sequence[str],
        average: AveragedWeights | None,
        metric: Any = None,
        every_steps: int = 500,
        seed: int = 0,
    ) -> None:
        self.folder, self.sampler, self.prompts = Path(folder), sampler, list(prompts)
        self.average, self.metric = average, metric
        self.every_steps, self.seed = every_steps, seed
        self._seen = 0

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        step = pl_module.step
        if step != self._seen and self.every_steps and step % self.every_steps == 0:
            self.draw(trainer, pl_module, step)
        self._seen = step

    def draw(self, trainer: Trainer, pl_module: LightningModule, step: int) -> Path | None:
        """Sample, save, log; the raw weights and the training mode are back afterwards."""
        if not trainer.is_global_zero:
            return None
        images = self.sample(pl_module, self.prompts)
        path = self.folder / f"step_{step:07d}.png"
        grid = captioned_grid(images, self.prompts)
        path.parent.mkdir(parents=True, exist_ok=True)
        grid.save(path)
        if self.metric is not None:
            self.metric.reset()
            self.metric.update(images, self.prompts)
            found = {f"preview/accuracy_{k}": float(v) for k, v in self.metric.compute().items()}
            for logger in trainer.loggers:
                logger.log_metrics(found, step=step)
        for logger in trainer.loggers:
            _log_image(logger, grid, step)
        return path

    def sample(self, pl_module: LightningModule, prompts: Sequence[str]) -> Any:
        """Images (N, 3, H, W) from the averaged weights where they are kept."""
        denoiser, training = pl_module.denoiser, pl_module.denoiser.training
        denoiser.eval()
        try:
            with pl_module.trainer.precision_plugin.forward_context():
                if self.average is None:
                    return self.sampler.images(denoiser, prompts, seed=self.seed)
                with self.average.applied(denoiser):
                    return self.sampler.images(denoiser, prompts, seed=self.seed)
        finally:
            denoiser.train(training)


def _log_image(logger: Any, grid: Any, step: int) -> None:
    import numpy as np

    if hasattr(logger, "log_image"):  # Weights & Biases
        logger.log_image("preview", [grid], step=step)
    elif hasattr(logger.experiment, "add_image"):  # TensorBoard
        logger.experiment.add_image("preview", np.asarray(grid), step, dataformats="HWC")
