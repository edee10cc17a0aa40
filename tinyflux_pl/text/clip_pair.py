"""CLIP ViT-L and OpenCLIP bigG side by side, for Stable Diffusion 3.5 followed by T5-XXL."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.precision import check_dtype
from tinyflux_pl.core.specs import TextSpec
from tinyflux_pl.core.types import PromptLength, TextEmbeddings
from tinyflux_pl.text import simulation
from tinyflux_pl.text.locate_encoder import locate
from tinyflux_pl.text.pretrained_text import PretrainedText
from tinyflux_pl.text.tokenizer import prompt_lengths, tokenize

SUBFOLDERS = {  # of each encoder and its tokenizer in a pipeline's folder
    "first": ("text_encoder", "tokenizer"),
    "second": ("text_encoder_2", "tokenizer_2"),
    "t5": ("text_encoder_3", "tokenizer_3"),
}
CLIP_LENGTH = 77


class ClipPairText(PretrainedText):
    """tokens (B, L, D) and pooled (B, P).

    Fp32 out, the mask True everywhere: these models attend to padding.

    Both CLIPs give the state before their last layer, side by side. SDXL (t5_length 0): D is the
    sum of their widths, pooled the second's projection (`pooled="second"`), and the unconditional
    is all zeros (`zero_null`). SD3.5 (t5_length 256): padded with zeros to T5's width and followed
    by T5's tokens, pooled both projections (`pooled="both"`). drop_t5 leaves T5 out of memory and
    gives zeros in its place, as the reference does without it. `weights` is a pipeline's folder or
    repository, or a single file that holds the encoders; then `tokenizer` is a folder or repository
    of the tokenizers, and `structures` describe the encoders, as where nothing is on disk.
    sequential=True holds one encoder in memory at a time.
    """

    name = "clip_pair"
    parts: ClassVar[dict[str, str]] = {"first": "clip_l", "second": "clip_g", "t5": "t5xxl"}

    def __init__(
        self,
        weights: str | None,
        revision: str | None = None,
        pooled: str = "second",
        zero_null: bool | None = None,
        t5_length: int = 0,
        drop_t5: bool = False,
        dtype: str = "float32",
        sequential: bool = False,
        batch_size: int = 32,
        structures: dict[str, Any] | None = None,
        tokenizer: str | None = None,
        tokenizer_revision: str | None = None,
        variant: str | None = None,
    ) -> None:
        check_dtype(
            dtype,
            "text.dtype",
            "T5's residual stream passes 65504" if t5_length and not drop_t5 else "",
        )
        if pooled not in ("second", "both"):
            raise ConfigError(
                f"no pooled {pooled!r}", where="text.pooled", cure="second (SDXL) or both (SD3.5)"
            )
        super().__init__(dtype, batch_size, variant, tokenizer, tokenizer_revision)
        self.weights = None if weights is None else str(weights)
        self.revision = revision
        self.pooled = pooled
        self.zero_null = True if zero_null is None else zero_null
        self.t5_length = t5_length
        self.drop_t5 = drop_t5
        self.sequential = sequential
        self.structures = structures
        self.kinds = {
            "first": "CLIPTextModel" if pooled == "second" else "CLIPTextModelWithProjection",
            "second": "CLIPTextModelWithProjection",
            **({"t5": "T5EncoderModel"} if t5_length else {}),
        }

    @property
    def _keys(self) -> Sequence[str]:
        return [key for key in self.kinds if not (key == "t5" and self.drop_t5)]

    @property
    def _tokenizer_key(self) -> str:
        return "t5" if self._reads_t5 else "first"

    @property
    def _reads_t5(self) -> bool:
        return bool(self.t5_length) and not self.drop_t5

    def _small(self) -> dict[str, Any]:
        rules = dict.fromkeys(("first", "second"), simulation.small_clip)
        rules["t5"] = simulation.small_t5
        structures = self.structures or {}
        small = {key: rules[key](structures.get(key, {})) for key in self.kinds}
        return {"weights": None, "structures": small, "dtype": "float32"}

    @property
    def _has_only_structures(self) -> bool:
        return self.weights is None

    def _inside(self, key: str) -> tuple[str, str]:
        return SUBFOLDERS[key]

    def _structure(self, key: str) -> dict[str, Any] | None:
        return (self.structures or {}).get(key)

    def _locate(self, key: str) -> tuple[Path, Path]:
        if self.weights is None:
            cure = (
                "text.weights=FOLDER of the whole pipeline, which holds text_encoder/, tokenizer/, "
                "..."
            )
            raise ConfigError("no weights for the text encoders", where="text.weights", cure=cure)
        inside = (*self._inside(key), self.parts[key])
        tokenizer = (self.tokenizer, self.tokenizer_revision)
        return locate(self.weights, self.revision, *inside, *tokenizer, variant=self.variant)

    def _described_by(self, key: str) -> tuple[Path | None, dict[str, Any] | None]:
        if self.weights is None or key in self._keys:
            return super()._described_by(key)
        # a T5 that is dropped still has a width
        folder = self._paths["first"][0].parent / SUBFOLDERS[key][0]
        return (folder if (folder / "config.json").is_file() else None), self._structure(key)

    @cached_property
    def text_spec(self) -> TextSpec:
        """Widths from the encoders' config.json, or from `structures` without weights."""
        width = self._width("first", "hidden_size") + self._width("second", "hidden_size")
        pooled = self._width("second", "projection_dim")
        if self.pooled == "both":
            pooled += self._width("first", "projection_dim")
        if self.t5_length:
            width = self._width("t5", "d_model")
        return TextSpec(width, CLIP_LENGTH + self.t5_length, pooled)

    def tokens_at_once(self) -> dict[str, int]:
        """77 of each CLIP, `t5_length` of T5."""
        return {key: self.t5_length if key == "t5" else CLIP_LENGTH for key in self._keys}

    def encode(self, prompts: Sequence[str]) -> TextEmbeddings:
        """Embed prompts; one beyond an encoder's length is truncated for it with a warning."""
        prompts = self._expanded(prompts)
        with self._gradients():
            first, pooled_first = self._clip("first", prompts)
            second, pooled = self._clip("second", prompts)
            t5_tokens = self._t5(prompts) if self.t5_length else None
        tokens = torch.cat([first, second], -1)
        if self.pooled == "both":
            pooled = torch.cat([pooled_first, pooled], -1)
        if t5_tokens is not None:
            tokens = torch.nn.functional.pad(tokens, (0, t5_tokens.shape[-1] - tokens.shape[-1]))
            tokens = torch.cat([tokens, t5_tokens], 1)
        return TextEmbeddings(
            tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device), pooled
        )

    def null(self) -> TextEmbeddings:
        """The unconditional: zeros for SDXL's base, else the empty prompt."""
        if not self.zero_null:
            return super().null()
        spec = self.text_spec
        tokens = torch.zeros(1, spec.length, spec.width, device=self.device)
        mask = torch.ones(1, spec.length, dtype=torch.bool, device=self.device)
        return TextEmbeddings(tokens, mask, torch.zeros(1, spec.pooled, device=self.device))

    def lengths(self, prompts: Sequence[str]) -> list[PromptLength]:
        """Tokens of each prompt that T5 (without T5: CLIP) reads, and the number truncated."""
        length = self.t5_length if self._reads_t5 else CLIP_LENGTH
        return prompt_lengths(self._tokenizer, self._expanded(prompts), length)

    def fingerprint(self) -> dict[str, Any]:
        """Plain data that decides the embeddings: file hashes, configurations and settings."""
        return {
            "text": self.name,
            "pooled": self.pooled,
            "zero_null": self.zero_null,
            "t5_length": self.t5_length,
            "dtype": self.dtype,
            **self._hashes,
            "config": self._deciding_configs(),
            **self._words_fingerprint(),
        }

    def _clip(self, key: str, prompts: list[str]) -> tuple[Tensor, Tensor]:
        """Tokens and pooled projection of one CLIP; width 0 for a class without a projection."""
        tokens, pooled = [], []
        for ids, model in self._token_ids(key, prompts, CLIP_LENGTH):
            output = model(input_ids=ids, output_hidden_states=True)
            tokens.append(output.hidden_states[-2].float())
            pooled.append(
                output[0].float() if output[0].ndim == 2 else tokens[-1].new_zeros(len(ids), 0)
            )
        return torch.cat(tokens), torch.cat(pooled)

    def _t5(self, prompts: list[str]) -> Tensor:
        if self.drop_t5:
            return torch.zeros(
                len(prompts), self.t5_length, self.text_spec.width, device=self.device
            )
        batches = self._token_ids("t5", prompts, self.t5_length)
        return torch.cat([model(input_ids=ids)[0].float() for ids, model in batches])

    def _token_ids(self, key: str, prompts: list[str], length: int) -> Iterator[tuple[Tensor, Any]]:
        """Token ids (b, length) batch by batch, with the network.

        It is released afterwards if `sequential`.
        """
        tokenizer, model = self._loaded(key)
        for part in self._batches(prompts, self.batch_size):
            yield tokenize(tokenizer, part, length)["input_ids"].to(self.device), model
        if self.sequential:
            self._models.pop(key)
