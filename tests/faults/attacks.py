"""Numbers that go wrong in the middle of training, each in one place only."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback

KINDS = ("loss", "gradient", "activation")


class Attack(Callback):
    """Set one number of the given `kind` to `value` in the given steps and micro-batch.

    A poisoned loss has finite gradients, a poisoned gradient a finite loss. Keeps copies of what
    `look(trainer)` returns before each attacked step, and the samples of all its micro-batches. A
    poisoned loss has finite gradients, a poisoned gradient a finite loss. Keeps copies of what
    `look(trainer)` returns before each attacked step, and the samples of all its micro-batches.
    """

    def __init__(
        self, kind: str, value: float, steps: set[int], micro_batch: int = 0, look: Any = None
    ) -> None:
        self.kind, self.value, self.steps, self.micro_batch = kind, value, steps, micro_batch
        self.look, self.before, self.sample_ids = look, [], []
        self._in_step, self._step = 0, -1
        self._undo: list[Any] = []

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        self._in_step = 0 if pl_module.step != self._step else self._in_step + 1
        self._step = pl_module.step
        if self._step not in self.steps:
            return
        if self._in_step == 0:
            self.sample_ids.append([])
            if self.look is not None:
                self.before.append(self.look())
        self.sample_ids[-1] += batch.sample_ids.tolist()
        if self._in_step == self.micro_batch:
            self._undo.append(getattr(self, f"_{self.kind}")(pl_module))

    def on_train_batch_end(self, *_: Any) -> None:
        while self._undo:
            self._undo.pop()()

    def _loss(self, pl_module: Any) -> Any:
        objective = pl_module.objective
        honest = objective.loss

        def poisoned(*args: Any) -> dict[str, torch.Tensor]:
            terms = honest(*args)
            return {**terms, "flow": terms["flow"] + self.value}

        objective.loss = poisoned
        return lambda: vars(objective).pop("loss")

    def _gradient(self, pl_module: Any) -> Any:
        parameter = list(pl_module.denoiser.parameters())[-1]

        def poisoned(gradient: torch.Tensor) -> torch.Tensor:
            gradient = gradient.clone()
            gradient.view(-1)[0] = self.value
            return gradient

        return parameter.register_hook(poisoned).remove

    def _activation(self, pl_module: Any) -> Any:
        inner = next(
            m
            for name, m in pl_module.denoiser.named_modules()
            if name.endswith(("mlp.fc1", "0.mlp"))
        )

        def poisoned(_: Any, __: Any, output: torch.Tensor) -> torch.Tensor:
            output = output.clone()
            output.view(-1)[0] = self.value
            return output

        return inner.register_forward_hook(poisoned).remove
