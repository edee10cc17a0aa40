"""DistilBERT, FluxFlow's pretrained text encoder: frozen, or trained with the denoiser."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.specs import TextSpec
from tinyflux_pl.core.types import PromptLength, TextEmbeddings
from tinyflux_pl.nets.masked_mean import masked_mean
from tinyflux_pl.text import encoder_config, pretrained
from tinyflux_pl.text.locate_encoder import locate
from tinyflux_pl.text.pretrained_text import PretrainedText
from tinyflux_pl.text.token_ids import LARGEST_VOCABULARY, EmbeddedIds, TokenIds
from tinyflux_pl.text.tokenizer import prompt_lengths, tokenize

KEY = "bert"


class DistilBertText(PretrainedText):
    """tokens (B, length, width) of the last layer with their mask, pooled (B, width) their mean.

    `weights` is a folder in transformers' layout, or a repository with the `revision` of a commit.
    """

    name = "distilbert"
    kinds: ClassVar[dict[str, str]] = {KEY: "DistilBertModel"}
    parts: ClassVar[dict[str, str]] = {KEY: "distilbert"}

    def __init__(
        self,
        weights: str | None,
        revision: str | None = None,
        length: int = 128,
        dtype: str = "float32",
        batch_size: int = 64,
        variant: str | None = None,
    ) -> None:
        pretrained.check_dtype(dtype, "text.dtype")
        super().__init__(dtype, batch_size, variant)
        self.weights = None if weights is None else str(weights)
        self.revision, self.length = revision, length

    def _locate(self, key: str) -> tuple[Path, Path]:
        if self.weights is None:
            cure = "text.weights=FOLDER of distilbert-base-uncased in transformers' layout"
            raise ConfigError("no weights of DistilBERT", where="text.weights", cure=cure)
        return locate(self.weights, self.revision, *self._inside(key), variant=self.variant)

    def _inside(self, key: str) -> tuple[str, str]:
        return "", ""

    @cached_property
    def text_spec(self) -> TextSpec:
        """Width from config.json."""
        width = self._width(KEY, "dim")
        return TextSpec(width=width, length=self.length, pooled=width)

    def encode(self, prompts: Sequence[str]) -> TextEmbeddings:
        """Prompts -> embeddings, padded to `length`."""
        batches = self._batches(self._expanded(prompts), self.batch_size)
        with self._gradients():
            return TextEmbeddings.cat([self._encode(part) for part in batches])

    def ids(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Ids and mask (B, length) as the tokenizer gives them."""
        tokens = tokenize(self._tokenizer, self._expanded(prompts), self.length)
        return tokens["input_ids"], tokens["attention_mask"].bool()

    def _encode(self, prompts: list[str]) -> TextEmbeddings:
        tokenizer, model = self._loaded(KEY)
        tokens = tokenize(tokenizer, prompts, self.length).to(self.device)
        mask = tokens["attention_mask"].bool()
        output = model(input_ids=tokens["input_ids"], attention_mask=mask).last_hidden_state.float()
        return TextEmbeddings(output, mask, masked_mean(output, mask))

    def lengths(self, prompts: Sequence[str]) -> list[PromptLength]:
        """Tokens of each prompt that are read, and that are cut off."""
        return prompt_lengths(self._tokenizer, self._expanded(prompts), self.length)

    def trainable(self) -> nn.Module:
        """The published network without dropout; on the meta device without values."""
        if torch.get_default_device().type == "meta":
            network: Any = self.skeletons()[KEY]
        else:
            path = self._paths[KEY][0]
            kind, part = self.kinds[KEY], self.parts[KEY]
            network = pretrained.load_encoder(kind, path, "float32", part, variant=self.variant)
        for module in network.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0  # a step's randomness comes from (seed, sample_id, step) alone
        return network.requires_grad_(True)

    def vocabulary(self) -> int:
        """Rows of the table of words."""
        path, structure = self._described_by(KEY)
        return int(encoder_config.described(path, structure)["vocab_size"])

    def fingerprint(self) -> dict[str, Any]:
        """Plain data that decides the embeddings: hashes of files, config.json, length, dtype."""
        return {
            "text": self.name,
            "length": self.length,
            "dtype": self.dtype,
            "files": self._hashes[KEY],
            "config": self._deciding_configs()[KEY],
            **self._words_fingerprint(),
        }


class DistilBertNetwork(nn.Module):
    """Ids and mask (B, L) -> tokens (B, L, D), and their mean (B, D)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Int[Tensor, "b l"], mask: Bool[Tensor, "b l"]) -> tuple[Tensor, Tensor]:
        """(tokens, pooled)."""
        tokens = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        return tokens, masked_mean(tokens, mask)


class TrainedDistilBert(TokenIds):
    """DistilBERT that is fine-tuned with the denoiser, from the weights of `weights`.

    Its tokenizer is read from there again by whoever draws with the trained model.
    """

    name = "distilbert_trained"

    def __init__(self, weights: str | None, revision: str | None = None, length: int = 128) -> None:
        self.published = DistilBertText(weights, revision, length)
        self.weights, self.revision, self.length = weights, revision, length
        self.device = torch.device("cpu")

    @property
    def embedded_spec(self) -> TextSpec:
        """Shapes of the network's output."""
        return self.published.text_spec

    def trained_network(self) -> nn.Module:
        """The published network."""
        if (rows := self.published.vocabulary()) > LARGEST_VOCABULARY:
            cure = f"an encoder of at most {LARGEST_VOCABULARY:,} tokens"
            raise ConfigError(f"{rows:,} tokens", where="text.weights", cure=cure)
        return EmbeddedIds(DistilBertNetwork(self.published.trainable()))

    def ids(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Ids and mask (B, length)."""
        return self.published.ids(prompts)

    def lengths(self, prompts: Sequence[str]) -> list[PromptLength]:
        """Tokens of each prompt that are read, and that are cut off."""
        return self.published.lengths(prompts)

    def config(self) -> dict[str, Any]:
        """The constructor's arguments: they rebuild this encoder."""
        return {"weights": self.weights, "revision": self.revision, "length": self.length}

    def fingerprint(self) -> dict[str, Any]:
        """Plain data that decides the ids."""
        return {**self.published.fingerprint(), "text": self.name}

    def to(self, device: torch.device | str) -> TrainedDistilBert:
        """Set the device of the ids."""
        self.device = torch.device(device)
        return self
