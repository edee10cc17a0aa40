"""The smallest real run: two layers, samples in memory, Lightning's trainer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import nn

from tinyflux_pl.core.types import Batch, Prediction, TextEmbeddings
from tinyflux_pl.diffusion.paths import LinearPath
from tinyflux_pl.diffusion.timesteps import Uniform
from tinyflux_pl.objectives.flow import FlowObjective
from tinyflux_pl.training.datamodule import CachedLatents
from tinyflux_pl.training.ema import AveragedWeights
from tinyflux_pl.training.flow_module import FlowModule
from tinyflux_pl.training.nonfinite_guard import NonFiniteGuard
from tinyflux_pl.training.optimizers import MuonAdamW
from tinyflux_pl.training.replay_bundle import ReplayBundle

CHANNELS, SIDE, WIDTH = 2, 2, 8


class Net(nn.Module):
    """A denoiser with a matrix for Muon and others for AdamW."""

    name, path, prediction, patch_size = "net", LinearPath(), "velocity", 1

    def __init__(self) -> None:
        super().__init__()
        self.img_in = nn.Linear(CHANNELS * SIDE * SIDE + 1, WIDTH)
        self.blocks = nn.ModuleList([nn.ModuleDict({"mlp": nn.Linear(WIDTH, WIDTH)})])
        self.final_linear = nn.Linear(WIDTH, CHANNELS * SIDE * SIDE)

    def forward(self, x_t: Any, t: Any, cond: Any) -> Prediction:
        features = self.img_in(torch.cat([x_t.flatten(1), t[:, None]], 1))
        return Prediction(
            self.final_linear(nn.functional.silu(self.blocks[0]["mlp"](features))).reshape(
                x_t.shape
            )
        )


class Samples:
    """Batches from memory; sample i has the id 1000 + i and latents multiplied by `scale`."""

    def __init__(self, count: int = 64) -> None:
        self.latents = torch.randn(
            count, CHANNELS, SIDE, SIDE, generator=torch.Generator().manual_seed(1)
        )
        self.scale = torch.ones(count)

    @property
    def lengths(self) -> list[int]:
        return [len(self)]

    @property
    def runs(self) -> list[list[tuple[range, tuple[tuple[int, ...], ...]]]]:
        return [[(range(len(self)), ((CHANNELS, SIDE, SIDE),))]]

    def __len__(self) -> int:
        return len(self.latents)

    def __getitems__(self, indices: list[int]) -> Batch:
        rows, count = torch.tensor(indices), len(indices)
        return Batch(
            latents=self.latents[rows] * self.scale[rows, None, None, None],
            text=null_text().expand(count),
            sample_ids=rows + 1000,
            dataset_ids=torch.zeros(count, dtype=torch.long),
            captions=[f"sample {i}" for i in indices],
        )


def null_text() -> TextEmbeddings:
    return TextEmbeddings(
        torch.zeros(1, 2, 3), torch.ones(1, 2, dtype=torch.bool), torch.zeros(1, 3)
    )


class Small:
    """A run of `steps` steps in `folder`, with `options` for the guard; `attacks` are callbacks."""

    def __init__(
        self,
        folder: Path,
        steps: int,
        *,
        samples: Samples | None = None,
        batch_size: int = 4,
        accumulation: int = 1,
        start: int = 0,
        optimizer: Any = MuonAdamW,
        attacks: tuple[Callback, ...] = (),
        guarded: bool = True,
        guard_class: type[NonFiniteGuard] = NonFiniteGuard,
        net: Net | None = None,
        ranks: int = 1,
        **options: Any,
    ) -> None:
        torch.manual_seed(0)
        self.net, self.samples = net or Net(), samples or Samples()
        bundle = ReplayBundle(folder, {"seed": 0}, {})
        self.guard = (
            guard_class(bundle, **{"log_every": 5, "warmup": 8, **options}) if guarded else None
        )
        self.average = AveragedWeights(decay=0.9)
        objective = FlowObjective(Uniform(), null_text())
        self.module = FlowModule(
            self.net, objective, optimizer, lambda step: 1 / (1 + step), start, guard=self.guard
        )
        self.data = CachedLatents(
            self.samples, self.samples, batch_size, steps, start, accumulation
        )
        callbacks_of_run = [self.average, self.guard] if guarded else [self.average]
        self.trainer = Trainer(
            accelerator="cpu",
            devices=ranks,
            strategy="auto" if ranks == 1 else "ddp",
            use_distributed_sampler=False,
            max_steps=steps - start,
            accumulate_grad_batches=accumulation,
            limit_val_batches=0,
            callbacks=[*attacks, *callbacks_of_run],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )

    def run(self) -> Small:
        self.trainer.fit(self.module, self.data)
        return self

    def bits(self) -> list[torch.Tensor]:
        """Copies of weights, averages and optimizer state."""
        tensors: list[torch.Tensor] = []

        def collect(value: Any) -> None:
            if isinstance(value, torch.Tensor):
                tensors.append(value.detach().clone())
            elif isinstance(value, dict):
                for item in value.values():
                    collect(item)

        optimizer = self.trainer.optimizers[0]
        states = (
            (optimizer.muon, optimizer.adamw) if isinstance(optimizer, MuonAdamW) else (optimizer,)
        )
        collect([{k: v for k, v in self.net.state_dict().items()}][0])
        collect(self.average.averages)
        for one in states:
            collect(dict(enumerate(one.state.values())))
        return tensors


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    """Bit equality, with NaN equal to NaN."""
    return len(one) == len(other) and all(
        torch.equal(a, b) for a, b in zip(one, other, strict=True)
    )


def skipped_lines(folder: Path) -> list[dict[str, Any]]:
    """Rows of skipped.jsonl."""
    return [json.loads(line) for line in (folder / "skipped.jsonl").read_text().splitlines()]
