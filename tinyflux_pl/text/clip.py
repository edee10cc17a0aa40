"""CLIP's last hidden state, the text input of Stable Diffusion 1.5 and of its flow teachers."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch

from tinyflux_pl.core.specs import TextSpec
from tinyflux_pl.core.types import PromptLength, TextEmbeddings
from tinyflux_pl.text import pretrained
from tinyflux_pl.text.locate_encoder import locate
from tinyflux_pl.text.pretrained_text import PretrainedText
from tinyflux_pl.text.tokenizer import prompt_lengths, tokenize


class ClipText(PretrainedText):
    """tokens (B, 77, width) after the final norm, pooled (B, width); fp32 out.

    The mask is True everywhere and CLIP gets none: Stable Diffusion was trained attending to
    its padding. `weights` is a diffusers pipeline folder or a repository; "" as a subfolder means
    that encoder or tokenizer lie at its root.
    """

    name = "clip"
    kinds: ClassVar[dict[str, str]] = {"clip": "CLIPTextModel"}
    parts: ClassVar[dict[str, str]] = {"clip": "clip_l"}

    def __init__(
        self,
        weights: str,
        subfolder: str = "text_encoder",
        tokenizer_subfolder: str = "tokenizer",
        revision: str | None = None,
        length: int = 77,
        dtype: str = "float32",
        batch_size: int = 64,
        variant: str | None = None,
    ) -> None:
        pretrained.check_dtype(dtype, "text.dtype")
        super().__init__(dtype, batch_size, variant)
        self.weights = str(weights)
        self.subfolder = subfolder
        self.tokenizer_subfolder = tokenizer_subfolder
        self.revision = revision
        self.length = length

    def _locate(self, key: str) -> tuple[Path, Path]:
        return locate(self.weights, self.revision, *self._inside(key), variant=self.variant)

    def _inside(self, key: str) -> tuple[str, str]:
        return self.subfolder, self.tokenizer_subfolder

    @cached_property
    def text_spec(self) -> TextSpec:
        """Width from config.json."""
        width = self._width("clip", "hidden_size")
        return TextSpec(width=width, length=self.length, pooled=width)

    def encode(self, prompts: Sequence[str]) -> TextEmbeddings:
        """Prompts -> embeddings, padded to `length`."""
        batches = self._batches(self._expanded(prompts), self.batch_size)
        with self._gradients():
            return TextEmbeddings.cat([self._encode(part) for part in batches])

    def _encode(self, prompts: list[str]) -> TextEmbeddings:
        tokenizer, model = self._loaded("clip")
        ids = tokenize(tokenizer, prompts, self.length)["input_ids"].to(self.device)
        output = model(input_ids=ids)
        mask = torch.ones(ids.shape, dtype=torch.bool, device=ids.device)
        return TextEmbeddings(output.last_hidden_state.float(), mask, output.pooler_output.float())

    def lengths(self, prompts: Sequence[str]) -> list[PromptLength]:
        """Tokens of each prompt that are read, and that are cut off."""
        return prompt_lengths(self._tokenizer, self._expanded(prompts), self.length)

    def fingerprint(self) -> dict[str, Any]:
        """Plain data that decides the embeddings: hashes of files, config.json, length, dtype."""
        return {
            "text": self.name,
            "length": self.length,
            "dtype": self.dtype,
            "files": self._hashes["clip"],
            "config": self._deciding_configs()["clip"],
            **self._words_fingerprint(),
        }
