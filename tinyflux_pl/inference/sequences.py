"""Sample target sequences for a file of conditions."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tinyflux_pl.codecs.identity import Identity
from tinyflux_pl.core import files
from tinyflux_pl.core import precision as formats
from tinyflux_pl.core.errors import ConfigError, DataError
from tinyflux_pl.core.finite import require_finite
from tinyflux_pl.core.progress import track
from tinyflux_pl.core.sequence_pairs import Moments, Pairs, PairShape
from tinyflux_pl.core.types import Conditioning
from tinyflux_pl.data.sequences.array_file import SUFFIXES
from tinyflux_pl.data.sequences.pair_file import PairFile
from tinyflux_pl.inference.pipeline import Pipeline
from tinyflux_pl.sampling.loop import sample
from tinyflux_pl.text.precomputed_tokens import PrecomputedTokens

NO_VECTOR = Moments((0.0,), (1.0,))  # of training without vectors


class SequencePipeline:
    """A pipeline whose model was trained on pairs of sequences; ConfigError for any other."""

    def __init__(self, pipeline: Pipeline) -> None:
        codec, text = pipeline.sampler.codec, pipeline.sampler.text
        if not isinstance(codec, Identity) or not isinstance(text, PrecomputedTokens):
            raise ConfigError(
                "this checkpoint takes prompts, not conditions",
                where="condition",
                cure='give prompt="..." instead',
            )
        self.pipeline = pipeline
        self.codec = codec
        self.text = text

    def read(self, path: str | Path) -> Pairs:
        """Read the conditions of a file; positions default to those used in training.

        DataError where neither the file nor training determines them.
        """
        file = PairFile(path, needs_target=False)
        trained_with_vector = self.text.vector_moments != NO_VECTOR
        if trained_with_vector and not file.has("vector"):
            raise DataError(
                "no vector, and in training there was one",
                where=str(path),
                cure=f"give vector (pairs, {self.text.text_spec.pooled})",
            )
        shape = PairShape(
            tokens=file.tokens or self.codec.tokens,
            width=self.codec.latent_spec.channels,
            condition_tokens=file.condition_tokens,
            condition_width=file.condition_width,
            axes=file.axes,
            vector=self.text.text_spec.pooled,
        )
        ids = {"target": self.codec.ids, "condition": self.text.ids}
        pairs = file.pairs(slice(0, len(file)), shape, ids)
        if not trained_with_vector and bool(pairs.vector.any()):
            raise DataError(
                "a vector, and in training there was none",
                where=str(path),
                cure="leave vector out",
            )
        return pairs

    @torch.inference_mode()
    def answers(self, pairs: Pairs, n: int = 1, seed: int = 0) -> Tensor:
        """`n` samples per condition, one after another (B * n, N, D).

        Sample i depends on (seed, i) and its condition.
        """
        if n < 1:
            raise ConfigError(f"n is {n}", where="n", cure="ask for at least one answer")
        denoiser, settings = self.pipeline.denoiser, self.pipeline.sampler.settings
        device = next(denoiser.parameters()).device
        condition = (pairs.condition, pairs.condition_ids, pairs.condition_mask, pairs.vector)
        text = self.text.embeddings(*condition).to(device)
        requests = [(row, i) for row in range(len(pairs)) for i in range(n)]
        size = self.pipeline.sampler.max_batch
        drawn = []
        for start in track(range(0, len(requests), size), "sample", len(requests), "answer", size):
            block = requests[start : start + size]
            rows = torch.tensor([row for row, _ in block])
            cond = Conditioning(
                text.select(rows.to(device)),
                target_ids=pairs.target_ids[rows].to(device),
                target_mask=pairs.target_mask[rows].to(device),
            )
            with formats.autocast(self.pipeline.precision, device):
                latents = sample(
                    denoiser,
                    cond,
                    self.text.null().to(device) if settings.guidance.scale != 1 else None,
                    shape=(self.codec.latent_spec.channels, pairs.target_ids.shape[1], 1),
                    sample_ids=[i for _, i in block],
                    seed=seed,
                    settings=settings,
                    max_batch=size,
                )
            require_finite(
                latents, "the answer is", f"{denoiser.name}, after {settings.steps} steps"
            )
            answer = self.codec.decode(latents)[..., 0].mT.cpu()
            drawn.append(answer.masked_fill(~pairs.target_mask[rows][..., None], 0))
        return torch.cat(drawn)

    def write(
        self, condition: str | Path, output: str | Path, n: int = 1, seed: int = 0
    ) -> tuple[Path, int]:
        """Sample targets for a file of conditions; returns the written file and its length.

        `output` is a .npz or .safetensors file, or a folder. The pairs are as data=sequences reads
        them.
        """
        pairs, path = self.read(condition), Path(output)
        path = path if path.suffix in SUFFIXES else path / "answers.safetensors"
        if path.exists():
            raise DataError(
                "the file exists already", where=str(path), cure="choose another output="
            )
        answers = self.answers(pairs, n, seed)
        repeated = ("condition", "condition_ids", "condition_mask", "target_ids", "target_mask")
        tensors = {name: getattr(pairs, name).repeat_interleave(n, 0) for name in repeated}
        tensors |= {"vector": pairs.vector.repeat_interleave(n, 0), "target": answers}
        _write(path, tensors, self._provenance(condition, n, seed))
        return path, len(answers)

    def _provenance(self, condition: str | Path, n: int, seed: int) -> dict[str, Any]:
        settings = asdict(self.pipeline.sampler.settings)
        request = {
            "condition": Path(condition).name,
            "sha256": files.sha256(condition),
            "n": n,
            "seed": seed,
        }
        return {
            **request,
            "settings": settings,
            "precision": self.pipeline.precision,
            **self.pipeline.origin,
        }


def _write(path: Path, tensors: dict[str, Tensor], provenance: dict[str, Any]) -> None:
    if path.suffix == ".safetensors":
        files.write_tensors(path, tensors, {"tinyflux_pl": json.dumps(provenance, sort_keys=True)})
        return
    with files.staged_file(path) as staging, open(staging, "wb") as handle:
        np.savez(handle, **{name: tensor.numpy() for name, tensor in tensors.items()})
