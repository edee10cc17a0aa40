"""CLIP's last hidden state: what Stable Diffusion 1.5 and its flow teachers read."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from tinyflux_pl.core.specs import TextSpec
from tinyflux_pl.core.types import PromptLength, TextEmbeddings
from tinyflux_pl.text import encoder_config, pretrained
from tinyflux_pl.text.encoder_place import locate
from tinyflux_pl.text.tokenizer import load_tokenizer, prompt_lengths, tokenize

KIND, PART = "CLIPTextModel", "clip_l"  # the class of transformers, and its keys (encoder_file.PARTS)


class ClipText:
    """tokens (B, 77, width) after the final norm, pooled (B, width); fp32 out.

    The mask is True everywhere and CLIP is given none: Stable Diffusion was trained attending to
    its padding. `weights` is a diffusers pipeline folder or a repository; "" as a subfolder means
    that encoder or tokenizer lie at its root.
    """

    name = "clip"

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
        self.batch_size, self.variant = batch_size, variant
        self.weights, self.subfolder, self.tokenizer_subfolder = str(weights), subfolder, tokenizer_subfolder
        self.revision, self.length, self.dtype = revision, length, dtype
        self.device = torch.device("cpu")
        self._model: tuple[Any, Any] | None = None

    @cached_property
    def _folders(self) -> tuple[Path, Path]:
        subfolders = (self.subfolder, self.tokenizer_subfolder)
        places = locate(self.weights, self.revision, *subfolders, variant=self.variant)
        pretrained.require_encoder(KIND, *places, PART, variant=self.variant)
        return places

    @cached_property
    def text_spec(self) -> TextSpec:
        """Width from config.json."""
        width = encoder_config.width_of(self._folders[0], "hidden_size", "CLIP")
        return TextSpec(width=width, length=self.length, pooled=width)

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> TextEmbeddings:
        """Prompts -> embeddings, padded to `length`."""
        prompts, size = list(prompts), self.batch_size
        return TextEmbeddings.cat([self._encode(prompts[i : i + size]) for i in range(0, len(prompts), size)])

    def _encode(self, prompts: list[str]) -> TextEmbeddings:
        tokenizer, model = self._loaded()
        ids = tokenize(tokenizer, prompts, self.length)["input_ids"].to(self.device)
        out = model(input_ids=ids)
        mask = torch.ones(ids.shape, dtype=torch.bool, device=ids.device)
        return TextEmbeddings(out.last_hidden_state.float(), mask, out.pooler_output.float())

    def null(self) -> TextEmbeddings:
        """The unconditional: the empty prompt."""
        return self.encode([""])

    def lengths(self, prompts: Sequence[str]) -> list[PromptLength]:
        """How many tokens of each prompt are read, and how many are cut off."""
        return prompt_lengths(self._tokenizer, prompts, self.length)

    @cached_property
    def _tokenizer(self) -> Any:
        return load_tokenizer(self._folders[1])

    def config(self) -> dict[str, Any]:
        """What rebuilds this encoder."""
        return {
            "weights": self.weights,
            "subfolder": self.subfolder,
            "tokenizer_subfolder": self.tokenizer_subfolder,
            "revision": self.revision,
            "length": self.length,
            "dtype": self.dtype,
            "batch_size": self.batch_size,
            "variant": self.variant,
        }

    @cached_property
    def _hashes(self) -> dict[str, str]:
        return pretrained.hash_of(*self._folders, self.variant)

    def fingerprint(self) -> dict[str, Any]:
        """What decides the embeddings: files by content, what config.json decides, length, dtype."""
        config = pretrained.decides(KIND, self._folders[0])
        told = {"text": self.name, "length": self.length, "dtype": self.dtype}
        return {**told, "files": self._hashes, "config": config}

    def to(self, device: Any) -> "ClipText":
        """Move, now or when loaded."""
        self.device = torch.device(device)
        if self._model is not None:
            self._model[1].to(self.device)
        return self

    def free(self) -> None:
        """Release the encoder; the next use reads it again."""
        self._model = None

    def _loaded(self) -> tuple[Any, Any]:
        if self._model is None:
            encoder, tokenizer = self._folders
            words = pretrained.tokenizer_for(KIND, encoder, tokenizer)
            model = pretrained.load_encoder(KIND, encoder, self.dtype, self.device, PART, None, self.variant)
            self._model = (words, model)
        return self._model
