"""T5 tokens with a CLIP pooled vector: what TinyFlux reads (Flan-T5 base and CLIP ViT-L)."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.specs import TextSpec
from tinyflux_pl.core.types import TextEmbeddings
from tinyflux_pl.text import pretrained

CLIP_LENGTH = 77


class ClipT5:
    """tokens (B, length, T5 width) with their mask, pooled (B, CLIP width); fp32 out.

    `t5` and `clip` are folders in the transformers layout or repositories (then with a revision each).
    sequential=True holds one encoder in memory at a time: each call reads T5, frees it, reads CLIP,
    frees it; meant for few large calls. fp16 is refused, since T5's residual stream overflows in it.
    """

    name = "flan_t5_clip"

    def __init__(
        self,
        t5: str,
        clip: str,
        t5_revision: str | None = None,
        clip_revision: str | None = None,
        length: int = 128,
        dtype: str = "float32",
        sequential: bool = False,
        batch_size: int = 64,
    ) -> None:
        pretrained.check_dtype(dtype, "text.dtype")
        if dtype == "float16":
            raise ConfigError("T5 overflows in float16", where="text.dtype", cure="use bfloat16 or float32")
        self.t5, self.clip, self.t5_revision, self.clip_revision = str(t5), str(clip), t5_revision, clip_revision
        self.length, self.dtype, self.sequential, self.batch_size = length, dtype, sequential, batch_size
        self.device = torch.device("cpu")
        self._models: dict[str, Any] = {}
        self._null: TextEmbeddings | None = None

    @cached_property
    def _folders(self) -> dict[str, Path]:
        return {
            "t5": pretrained.locate(self.t5, self.t5_revision, "")[0],
            "clip": pretrained.locate(self.clip, self.clip_revision, "")[0],
        }

    @cached_property
    def text_spec(self) -> TextSpec:
        """Widths from the two config.json."""
        return TextSpec(
            width=pretrained.width_of(self._folders["t5"], "d_model", "T5"),
            length=self.length,
            pooled=pretrained.width_of(self._folders["clip"], "hidden_size", "CLIP"),
        )

    def encode(self, prompts: Sequence[str]) -> TextEmbeddings:
        """Prompts -> embeddings padded to `length`."""
        prompts = list(prompts)
        chunks = [prompts[i : i + self.batch_size] for i in range(0, len(prompts), self.batch_size)]
        told = [self._encode_t5(chunk) for chunk in chunks]
        if self.sequential:
            self.free()
        pooled = [self._encode_clip(chunk) for chunk in chunks]
        if self.sequential:
            self.free()
        return TextEmbeddings(
            torch.cat([tokens for tokens, _ in told]), torch.cat([mask for _, mask in told]), torch.cat(pooled)
        )

    def null(self) -> TextEmbeddings:
        """The unconditional: the empty prompt, encoded once."""
        if self._null is None:
            self._null = self.encode([""])
        return self._null.to(self.device)

    def config(self) -> dict[str, Any]:
        """What rebuilds this encoder."""
        return {
            "t5": self.t5,
            "clip": self.clip,
            "t5_revision": self.t5_revision,
            "clip_revision": self.clip_revision,
            "length": self.length,
            "dtype": self.dtype,
            "sequential": self.sequential,
            "batch_size": self.batch_size,
        }

    @cached_property
    def _hashes(self) -> dict[str, dict[str, str]]:
        return {key: pretrained.hash_of(folder, folder) for key, folder in self._folders.items()}

    def fingerprint(self) -> dict[str, Any]:
        """What decides the embeddings: files by content, length, dtype."""
        return {"text": self.name, "length": self.length, "dtype": self.dtype, **self._hashes}

    def to(self, device: Any) -> "ClipT5":
        """Move, now or when loaded."""
        self.device = torch.device(device)
        for _, model in self._models.values():
            model.to(self.device)
        return self

    def free(self) -> None:
        """Release both encoders; the next use reads them again."""
        self._models.clear()

    def _loaded(self, key: str, kind: str) -> tuple[Any, Any]:
        if key not in self._models:
            folder = self._folders[key]
            model = pretrained.load_encoder(kind, folder, self.dtype, self.device)
            self._models[key] = (pretrained.load_tokenizer(folder), model)
        return self._models[key]

    @torch.no_grad()
    def _encode_t5(self, prompts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        tokenizer, model = self._loaded("t5", "T5EncoderModel")
        read = pretrained.tokenize(tokenizer, prompts, self.length)
        ids, mask = read["input_ids"].to(self.device), read["attention_mask"].to(self.device)
        return model(input_ids=ids, attention_mask=mask).last_hidden_state.float(), mask.bool()

    @torch.no_grad()
    def _encode_clip(self, prompts: list[str]) -> torch.Tensor:
        tokenizer, model = self._loaded("clip", "CLIPTextModel")
        read = pretrained.tokenize(tokenizer, prompts, CLIP_LENGTH)
        ids, mask = read["input_ids"].to(self.device), read["attention_mask"].to(self.device)
        return model(input_ids=ids, attention_mask=mask).pooler_output.float()
