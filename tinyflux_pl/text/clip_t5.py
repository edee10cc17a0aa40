"""T5 tokens with a CLIP pooled vector: what TinyFlux (Flan-T5 base) and FLUX.1 (T5-XXL) read, with CLIP ViT-L."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.precision import check_dtype
from tinyflux_pl.core.specs import TextSpec
from tinyflux_pl.core.types import PromptLength, TextEmbeddings
from tinyflux_pl.text import encoder_config, pretrained
from tinyflux_pl.text.encoder_place import locate
from tinyflux_pl.text.tokenizer import load_tokenizer, prompt_lengths, tokenize

CLIP_LENGTH = 77
KINDS = {"t5": "T5EncoderModel", "clip": "CLIPTextModel"}  # the classes of transformers
PARTS = {"t5": "t5xxl", "clip": "clip_l"}  # their names inside a single file
SUBFOLDERS = ("t5", "t5_tokenizer", "clip", "clip_tokenizer")


class ClipT5:
    """tokens (B, length, T5 width) with their mask, pooled (B, CLIP width); fp32 out.

    `t5` and `clip` are folders in the transformers layout or repositories (then with a revision each), of
    which the subfolders hold encoder and tokenizer ("" for the root). masked=False is FLUX.1's way: the
    encoders are not told what is padding, and the mask is True everywhere, since the image model attends to
    it all. attend_padding=True is that of TinyFlux's published weights: the encoders are told, the image model is not.
    Either may be a single file, of the encoder alone or a whole checkpoint; then `tokenizer` is a folder or
    repository of tokenizers. `structures` (t5, clip) say what encoders are where no folder does. sequential=True
    holds one in memory at a time: each call reads T5, frees it, reads CLIP, frees it; meant for few large calls.
    fp16 is refused, since T5's residual stream overflows in it.
    """

    name = "flan_t5_clip"

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
        self.t5, self.clip, self.t5_revision, self.clip_revision = t5, clip, t5_revision, clip_revision
        self.tokenizer, self.tokenizer_revision = tokenizer, tokenizer_revision
        self.masked, self.attend_padding = masked, attend_padding
        self.structures, self.variant = structures, variant
        self.subfolders = {**dict.fromkeys(SUBFOLDERS, ""), **(subfolders or {})}
        if unknown := set(self.subfolders) - set(SUBFOLDERS):
            raise ConfigError(f"no {unknown}", where="text.subfolders", cure=f"keys are {', '.join(SUBFOLDERS)}")
        self.length, self.dtype, self.sequential, self.batch_size = length, dtype, sequential, batch_size
        self.device = torch.device("cpu")
        self._models: dict[str, Any] = {}
        self._null: TextEmbeddings | None = None

    @cached_property
    def _places(self) -> dict[str, tuple[Path, Path]]:
        """Of each encoder: its own place, and its tokenizer's folder."""
        found = {}
        for key in KINDS:
            if getattr(self, key) is None:
                cure = f"text.{key}=FOLDER, or release.weights=FOLDER of the whole pipeline"
                raise ConfigError(f"no weights for {KINDS[key]}", where=f"text.{key}", cure=cure)
            inside = (self.subfolders[key], self.subfolders[f"{key}_tokenizer"], PARTS[key])
            words = (self.tokenizer, self.tokenizer_revision)
            source = (getattr(self, key), getattr(self, f"{key}_revision"))
            found[key] = locate(*source, *inside, *words, variant=self.variant)
            told = (self.structures or {}).get(key)
            pretrained.require_encoder(KINDS[key], *found[key], PARTS[key], told, self.variant)
        return found

    def _described(self, key: str) -> tuple[Path | None, dict[str, Any] | None]:
        """What tells of an encoder: its place (None: nothing on disk), or `structures`."""
        planned = self.t5 is None and self.clip is None and self.structures is not None
        return None if planned else self._places[key][0], (self.structures or {}).get(key)

    @cached_property
    def text_spec(self) -> TextSpec:
        """Widths from the two config.json, or from `structures` where there are no folders."""
        (t5, t5_told), (clip, clip_told) = self._described("t5"), self._described("clip")
        width = encoder_config.width_of(t5, "d_model", "T5", t5_told)
        return TextSpec(width, self.length, encoder_config.width_of(clip, "hidden_size", "CLIP", clip_told))

    def skeletons(self) -> dict[str, Any]:
        """Both encoders without values, on the meta device."""
        told = {key: encoder_config.described(*self._described(key)) for key in KINDS}
        return {key: encoder_config.skeleton(KINDS[key], described) for key, described in told.items()}

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

    def lengths(self, prompts: Sequence[str]) -> list[PromptLength]:
        """How many of T5's tokens of each prompt are read, and how many are cut off."""
        return prompt_lengths(self._tokenizer, prompts, self.length)

    @cached_property
    def _tokenizer(self) -> Any:
        return load_tokenizer(self._places["t5"][1])

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
            "masked": self.masked,
            **({"attend_padding": True} if self.attend_padding else {}),
            "subfolders": self.subfolders,
            "structures": self.structures,
            "tokenizer": self.tokenizer,
            "tokenizer_revision": self.tokenizer_revision,
            "variant": self.variant,
        }

    @cached_property
    def _hashes(self) -> dict[str, dict[str, str]]:
        return {key: pretrained.hash_of(*places, self.variant) for key, places in self._places.items()}

    def fingerprint(self) -> dict[str, Any]:
        """What decides the embeddings: files by content, what the configurations decide, length, dtype."""
        told = {"text": self.name, "length": self.length, "dtype": self.dtype, **self._hashes}
        told["config"] = {
            key: pretrained.decides(kind, self._places[key][0], (self.structures or {}).get(key))
            for key, kind in KINDS.items()
        }
        told = told if self.masked else {**told, "masked": False}
        return {**told, "attend_padding": True} if self.attend_padding else told

    def to(self, device: Any) -> "ClipT5":
        """Move, now or when loaded."""
        self.device = torch.device(device)
        for _, model in self._models.values():
            model.to(self.device)
        return self

    def free(self) -> None:
        """Release both encoders; the next use reads them again."""
        self._models.clear()

    def _loaded(self, key: str) -> tuple[Any, Any]:
        if key not in self._models:
            place, tokenizer = self._places[key]
            structure = (self.structures or {}).get(key)
            words = pretrained.tokenizer_for(KINDS[key], place, tokenizer, structure)
            told = (PARTS[key], structure, self.variant)
            model = pretrained.load_encoder(KINDS[key], place, self.dtype, self.device, *told)
            self._models[key] = (words, model)
        return self._models[key]

    @torch.no_grad()
    def _encode_t5(self, prompts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        model, ids, mask = self._read("t5", prompts, self.length)
        tokens = model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        told = mask is not None and not self.attend_padding
        return tokens, mask.bool() if told else torch.ones_like(ids, dtype=torch.bool)

    @torch.no_grad()
    def _encode_clip(self, prompts: list[str]) -> torch.Tensor:
        model, ids, mask = self._read("clip", prompts, CLIP_LENGTH)
        return model(input_ids=ids, attention_mask=mask).pooler_output.float()

    def _read(self, key: str, prompts: list[str], length: int) -> tuple[Any, torch.Tensor, torch.Tensor | None]:
        tokenizer, model = self._loaded(key)
        read = tokenize(tokenizer, prompts, length)
        mask = read["attention_mask"].to(self.device) if self.masked else None
        return model, read["input_ids"].to(self.device), mask
