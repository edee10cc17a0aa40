"""T5 tokens with a CLIP pooled vector: TinyFlux (Flan-T5 base) and FLUX.1 (T5-XXL)."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Bool
from torch import Tensor

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.precision import check_dtype
from tinyflux_pl.core.specs import TextSpec
from tinyflux_pl.core.types import PromptLength, TextEmbeddings
from tinyflux_pl.text import simulation
from tinyflux_pl.text.locate_encoder import locate
from tinyflux_pl.text.pretrained_text import PretrainedText
from tinyflux_pl.text.tokenizer import prompt_lengths, tokenize

CLIP_LENGTH = 77
SUBFOLDERS = ("t5", "t5_tokenizer", "clip", "clip_tokenizer")


class ClipT5(PretrainedText):
    """tokens (B, length, T5 width) with their mask, pooled (B, CLIP width); fp32 out.

    `t5` and `clip` are folders in the transformers layout or repositories (then with a revision
    each), of which the subfolders hold encoder and tokenizer ("" for the root). masked=False is
    FLUX.1's way: the encoders get no mask, and the mask is True everywhere, since the image model
    attends to all padding. attend_padding=True is that of TinyFlux's published weights: the
    encoders get the mask, the image model does not. Either may be a single file, of the encoder
    alone or a whole checkpoint; then `tokenizer` is a folder or repository of tokenizers.
    `structures` (t5, clip) describe encoders where no folder does. sequential=True holds one in
    memory at a time: each call reads T5, frees it, reads CLIP, frees it; meant for few large calls.
    fp16 is refused, since T5's residual stream overflows in it.
    """

    name = "flan_t5_clip"
    kinds: ClassVar[dict[str, str]] = {"t5": "T5EncoderModel", "clip": "CLIPTextModel"}
    parts: ClassVar[dict[str, str]] = {"t5": "t5xxl", "clip": "clip_l"}

    def __init__(
        self,
        t5: str | None,
        clip: str | None,
        t5_revision: str | None = None,
        clip_revision: str | None = None,
        length: int = 128,
        dtype: str = "float32",
        sequential: bool = False,
        batch_size: int = 64,
        masked: bool = True,
        attend_padding: bool = False,
        subfolders: dict[str, str] | None = None,
        structures: dict[str, Any] | None = None,
        tokenizer: str | None = None,
        tokenizer_revision: str | None = None,
        variant: str | None = None,
    ) -> None:
        check_dtype(dtype, "text.dtype", "T5's residual stream passes 65504")
        super().__init__(dtype, batch_size, variant, tokenizer, tokenizer_revision)
        self.t5 = t5
        self.clip = clip
        self.t5_revision = t5_revision
        self.clip_revision = clip_revision
        self.length = length
        self.sequential = sequential
        self.masked = masked
        self.attend_padding = attend_padding
        self.structures = structures
        self.subfolders = {**dict.fromkeys(SUBFOLDERS, ""), **(subfolders or {})}
        if unknown := set(self.subfolders) - set(SUBFOLDERS):
            raise ConfigError(
                f"no {unknown}", where="text.subfolders", cure=f"keys are {', '.join(SUBFOLDERS)}"
            )
        self._null: TextEmbeddings | None = None

    @property
    def _sources(self) -> dict[str, tuple[str | None, str | None]]:
        """Weights and revision of each encoder."""
        return {"t5": (self.t5, self.t5_revision), "clip": (self.clip, self.clip_revision)}

    def _inside(self, key: str) -> tuple[str, str]:
        return self.subfolders[key], self.subfolders[f"{key}_tokenizer"]

    def _structure(self, key: str) -> dict[str, Any] | None:
        return (self.structures or {}).get(key)

    def _small(self) -> dict[str, Any]:
        structures = self.structures or {}
        small = {
            "t5": simulation.small_t5(structures.get("t5", {})),
            "clip": simulation.small_clip(structures.get("clip", {})),
        }
        return {"t5": None, "clip": None, "structures": small, "dtype": "float32"}

    @property
    def _has_only_structures(self) -> bool:
        return self.t5 is None and self.clip is None and self.structures is not None

    def _forget(self) -> None:
        super()._forget()
        self._null = None

    def _locate(self, key: str) -> tuple[Path, Path]:
        weights, revision = self._sources[key]
        if weights is None:
            cure = f"text.{key}=FOLDER, or release.weights=FOLDER of the whole pipeline"
            raise ConfigError(f"no weights for {self.kinds[key]}", where=f"text.{key}", cure=cure)
        inside = (*self._inside(key), self.parts[key])
        tokenizer = (self.tokenizer, self.tokenizer_revision)
        return locate(weights, revision, *inside, *tokenizer, variant=self.variant)

    @cached_property
    def text_spec(self) -> TextSpec:
        """Widths from the two config.json, or from `structures` where there are no folders."""
        return TextSpec(
            self._width("t5", "d_model"), self.length, self._width("clip", "hidden_size")
        )

    def tokens_at_once(self) -> dict[str, int]:
        """`length` of T5, 77 of CLIP."""
        return {"t5": self.length, "clip": CLIP_LENGTH}

    def encode(self, prompts: Sequence[str]) -> TextEmbeddings:
        """Prompts -> embeddings padded to `length`."""
        batches = list(self._batches(self._expanded(prompts), self.batch_size))
        with self._gradients():
            encoded = [self._encode_t5(batch) for batch in batches]
            if self.sequential:
                self.free()
            pooled = [self._encode_clip(batch) for batch in batches]
            if self.sequential:
                self.free()
        tokens = torch.cat([tokens for tokens, _ in encoded])
        mask = torch.cat([mask for _, mask in encoded])
        return TextEmbeddings(tokens, mask, torch.cat(pooled))

    def null(self) -> TextEmbeddings:
        """The unconditional: the empty prompt, encoded once."""
        if self._null is None:
            self._null = super().null()
        return self._null.to(self.device)

    def lengths(self, prompts: Sequence[str]) -> list[PromptLength]:
        """T5 tokens of each prompt that are read, and that are cut off."""
        return prompt_lengths(self._tokenizer, self._expanded(prompts), self.length)

    def masks(self, prompts: Sequence[str]) -> Bool[Tensor, "b l"]:
        """The masks of T5's tokenizer; all True if the image model attends to padding."""
        if not self.masked or self.attend_padding:
            return torch.ones(len(prompts), self.length, dtype=torch.bool)
        encoding = tokenize(self._tokenizer, self._expanded(prompts), self.length)
        return encoding["attention_mask"].bool()

    def config(self) -> dict[str, Any]:
        """The constructor's arguments.

        `attend_padding` only where it is True, as older checkpoints have it.
        """
        config = super().config()
        if not self.attend_padding:
            config.pop("attend_padding")
        return config

    def fingerprint(self) -> dict[str, Any]:
        """Plain data that decides the embeddings: file hashes, configurations and settings."""
        return {
            "text": self.name,
            "length": self.length,
            "dtype": self.dtype,
            **self._hashes,
            "config": self._deciding_configs(),
            **({} if self.masked else {"masked": False}),
            **({"attend_padding": True} if self.attend_padding else {}),
            **self._words_fingerprint(),
        }

    def _encode_t5(self, prompts: list[str]) -> tuple[Tensor, Tensor]:
        model, ids, mask = self._inputs("t5", prompts, self.length)
        tokens = model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        if mask is None or self.attend_padding:
            return tokens, torch.ones_like(ids, dtype=torch.bool)
        return tokens, mask.bool()

    def _encode_clip(self, prompts: list[str]) -> Tensor:
        model, ids, mask = self._inputs("clip", prompts, CLIP_LENGTH)
        return model(input_ids=ids, attention_mask=mask).pooler_output.float()

    def _inputs(
        self, key: str, prompts: list[str], length: int
    ) -> tuple[Any, Tensor, Tensor | None]:
        """The network, token ids (b, length) and their mask (None where the encoder gets none)."""
        tokenizer, model = self._loaded(key)
        encoding = tokenize(tokenizer, prompts, length)
        mask = encoding["attention_mask"].to(self.device) if self.masked else None
        return model, encoding["input_ids"].to(self.device), mask
