"""CLIP ViT-L beside OpenCLIP bigG, for Stable Diffusion 3.5 followed by T5-XXL."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.precision import check_dtype
from tinyflux_pl.core.specs import TextSpec
from tinyflux_pl.core.types import PromptLength, TextEmbeddings
from tinyflux_pl.text import encoder_config, pretrained
from tinyflux_pl.text.encoder_place import locate
from tinyflux_pl.text.tokenizer import load_tokenizer, prompt_lengths, tokenize

PARTS = {  # of an encoder and its tokenizer the folders, and the name inside a single file
    "first": ("text_encoder", "tokenizer", "clip_l"),
    "second": ("text_encoder_2", "tokenizer_2", "clip_g"),
    "t5": ("text_encoder_3", "tokenizer_3", "t5xxl"),
}
CLIP_LENGTH = 77


class ClipPairText:
    """tokens (B, L, D) and pooled (B, P); fp32 out, the mask True everywhere: these models attend to padding.

    Both CLIPs give the state before their last layer, side by side. SDXL (t5_length 0): D is the sum of their
    widths, pooled the second's projection (`pooled="second"`), and the unconditional is all zeros (`zero_null`).
    SD3.5 (t5_length 256): padded with zeros to T5's width and followed by T5's tokens, pooled both projections
    (`pooled="both"`). drop_t5 leaves T5 out of memory and gives zeros in its place, as the reference does without
    it. `weights` is a pipeline's folder or repository, or a single file that holds the encoders; then `tokenizer` is
    a folder or repository of the tokenizers, and `structures` say what the encoders are, as where there is nothing.
    sequential=True holds one encoder in memory at a time.
    """

    name = "clip_pair"

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
        check_dtype(dtype, "text.dtype", "T5's residual stream passes 65504" if t5_length and not drop_t5 else "")
        if pooled not in ("second", "both"):
            raise ConfigError(f"no pooled {pooled!r}", where="text.pooled", cure="second (SDXL) or both (SD3.5)")
        self.weights = None if weights is None else str(weights)
        self.tokenizer, self.tokenizer_revision, self.variant = tokenizer, tokenizer_revision, variant
        self.revision, self.pooled, self.structures = revision, pooled, structures
        self.zero_null = True if zero_null is None else zero_null  # None: nothing says otherwise
        self.t5_length, self.drop_t5, self.dtype = t5_length, drop_t5, dtype
        self.sequential, self.batch_size = sequential, batch_size
        self.kinds = {
            "first": "CLIPTextModel" if pooled == "second" else "CLIPTextModelWithProjection",
            "second": "CLIPTextModelWithProjection",
            **({"t5": "T5EncoderModel"} if t5_length else {}),
        }
        self.device = torch.device("cpu")
        self._models: dict[str, tuple[Any, Any]] = {}

    @cached_property
    def _places(self) -> dict[str, tuple[Path, Path]]:
        """Of each encoder that is read: its own place, and its tokenizer's folder."""
        if self.weights is None:
            cure = "text.weights=FOLDER of the whole pipeline, which holds text_encoder/, tokenizer/, ..."
            raise ConfigError("no weights for the text encoders", where="text.weights", cure=cure)
        words = (self.tokenizer, self.tokenizer_revision)
        found = {}
        for key, kind in self._read_kinds.items():
            found[key] = locate(self.weights, self.revision, *PARTS[key], *words, variant=self.variant)
            told = (PARTS[key][2], (self.structures or {}).get(key))
            pretrained.require_encoder(kind, *found[key], *told, self.variant)
        return found

    @property
    def _read_kinds(self) -> dict[str, str]:
        return {key: kind for key, kind in self.kinds.items() if not (key == "t5" and self.drop_t5)}

    def _described(self, key: str) -> tuple[Path | None, dict[str, Any] | None]:
        """What tells of an encoder: its place (None: nothing on disk), or `structures`."""
        structure = (self.structures or {}).get(key)
        if self.weights is None:
            return None, structure
        if key in self._read_kinds:
            return self._places[key][0], structure
        folder = self._places["first"][0].parent / PARTS[key][0]  # a T5 that is dropped still says its width
        return (folder if (folder / "config.json").is_file() else None), structure

    def _told(self, key: str, name: str) -> int:
        place, structure = self._described(key)
        return encoder_config.width_of(place, name, self.kinds[key], structure)

    @cached_property
    def text_spec(self) -> TextSpec:
        """Widths from the encoders' config.json, or from `structures` where there are no weights."""
        clip = self._told("first", "hidden_size") + self._told("second", "hidden_size")
        pooled = self._told("second", "projection_dim")
        if self.pooled == "both":
            pooled += self._told("first", "projection_dim")
        return TextSpec(self._told("t5", "d_model") if self.t5_length else clip, CLIP_LENGTH + self.t5_length, pooled)

    def skeletons(self) -> dict[str, Any]:
        """The encoders without values, on the meta device."""
        told = {key: encoder_config.described(*self._described(key)) for key in self._read_kinds}
        return {key: encoder_config.skeleton(self.kinds[key], described) for key, described in told.items()}

    def encode(self, prompts: Sequence[str]) -> TextEmbeddings:
        """Prompts -> embeddings; a prompt longer than an encoder's length is cut for it, with a warning."""
        prompts = list(prompts)
        first, pooled_first = self._clip("first", prompts)
        second, pooled = self._clip("second", prompts)
        tokens = torch.cat([first, second], -1)
        if self.pooled == "both":
            pooled = torch.cat([pooled_first, pooled], -1)
        if self.t5_length:
            words = self._t5(prompts)
            tokens = torch.nn.functional.pad(tokens, (0, words.shape[-1] - tokens.shape[-1]))
            tokens = torch.cat([tokens, words], 1)
        return TextEmbeddings(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device), pooled)

    def null(self) -> TextEmbeddings:
        """The unconditional: zeros for SDXL's base, else the empty prompt."""
        if not self.zero_null:
            return self.encode([""])
        spec = self.text_spec
        tokens = torch.zeros(1, spec.length, spec.width, device=self.device)
        mask = torch.ones(1, spec.length, dtype=torch.bool, device=self.device)
        return TextEmbeddings(tokens, mask, torch.zeros(1, spec.pooled, device=self.device))

    def lengths(self, prompts: Sequence[str]) -> list[PromptLength]:
        """How many tokens of each prompt T5 reads, or CLIP where there is no T5, and how many are cut."""
        length = self.t5_length if self._reads_t5 else CLIP_LENGTH
        return prompt_lengths(self._tokenizer, prompts, length)

    @property
    def _reads_t5(self) -> bool:
        return bool(self.t5_length) and not self.drop_t5

    @cached_property
    def _tokenizer(self) -> Any:
        return load_tokenizer(self._places["t5" if self._reads_t5 else "first"][1])

    def config(self) -> dict[str, Any]:
        """What rebuilds this encoder."""
        names = "weights revision pooled zero_null t5_length drop_t5 dtype sequential batch_size structures"
        return {name: getattr(self, name) for name in f"{names} tokenizer tokenizer_revision variant".split()}

    @cached_property
    def _hashes(self) -> dict[str, dict[str, str]]:
        return {key: pretrained.hash_of(*places, self.variant) for key, places in self._places.items()}

    def fingerprint(self) -> dict[str, Any]:
        """What decides the embeddings: files by content, configurations, lengths, the unconditional, dtype."""
        names = ("pooled", "zero_null", "t5_length", "dtype")
        config = {
            key: pretrained.decides(self.kinds[key], place, (self.structures or {}).get(key))
            for key, (place, _) in self._places.items()
        }
        told = {"text": self.name, **{name: getattr(self, name) for name in names}}
        return {**told, **self._hashes, "config": config}

    def to(self, device: Any) -> "ClipPairText":
        """Move, now or when loaded."""
        self.device = torch.device(device)
        for _, model in self._models.values():
            model.to(self.device)
        return self

    def free(self) -> None:
        """Release the encoders; the next use reads them again."""
        self._models.clear()

    @torch.no_grad()
    def _clip(self, key: str, prompts: list[str]) -> tuple[Tensor, Tensor]:
        tokens, pooled = [], []
        for ids, model in self._read(key, prompts, CLIP_LENGTH):
            out = model(input_ids=ids, output_hidden_states=True)
            tokens.append(out.hidden_states[-2].float())
            pooled.append(out[0].float() if out[0].ndim == 2 else tokens[-1].new_zeros(len(ids), 0))
        return torch.cat(tokens), torch.cat(pooled)

    @torch.no_grad()
    def _t5(self, prompts: list[str]) -> Tensor:
        if self.drop_t5:
            return torch.zeros(len(prompts), self.t5_length, self.text_spec.width, device=self.device)
        return torch.cat([m(input_ids=ids)[0].float() for ids, m in self._read("t5", prompts, self.t5_length)])

    def _read(self, key: str, prompts: list[str], length: int) -> Any:
        """Token ids of a part of the prompts, and the model; the model goes afterwards if they take turns."""
        if key not in self._models:
            place, tokenizer = self._places[key]
            structure = (self.structures or {}).get(key)
            words = pretrained.tokenizer_for(self.kinds[key], place, tokenizer, structure)
            told = (PARTS[key][2], structure, self.variant)
            model = pretrained.load_encoder(self.kinds[key], place, self.dtype, self.device, *told)
            self._models[key] = (words, model)
        tokenizer, model = self._models[key]
        for start in range(0, len(prompts), self.batch_size):
            read = tokenize(tokenizer, prompts[start : start + self.batch_size], length)
            yield read["input_ids"].to(self.device), model
        if self.sequential:
            self._models.pop(key)
