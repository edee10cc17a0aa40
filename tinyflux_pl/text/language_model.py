"""Hidden states of a chat model, several layers side by side: what FLUX.2 and FLUX.3 read."""

import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from tinyflux_pl.core.errors import CheckpointMismatch, ConfigError
from tinyflux_pl.core.precision import check_dtype
from tinyflux_pl.core.specs import TextSpec
from tinyflux_pl.core.types import PromptLength, TextEmbeddings
from tinyflux_pl.text import encoder_config, encoder_file, pretrained
from tinyflux_pl.text.encoder_place import locate
from tinyflux_pl.text.tokenizer import load_tokenizer, prompt_lengths


class LanguageModelText:
    """tokens (B, L, layers x hidden): the states after each of `layers`, concatenated; pooled (B, 0); fp32 out.

    The prompt is the user's turn of a chat (after `system_message`, if there is one), written by the
    tokenizer's own template with the options `template`. The encoder is told what is padding; the mask
    that comes out is True everywhere, since these image models attend to their padding. L is `length`, or,
    with `pad_multiple`, the prompt's own length rounded up to it: prompts of one batch may then differ,
    and what pads the shorter ones is False. `weights` is a release, or a single file of the encoder, which may
    lack the layers that nothing reads; then `tokenizer` is a folder or repository that holds the tokenizer, and
    `structure` says what the encoder is, as where there is nothing.
    """

    name = "language_model"

    def __init__(
        self,
        weights: str | None,
        kind: str,
        layers: Sequence[int],
        subfolder: str = "text_encoder",
        tokenizer_subfolder: str = "tokenizer",
        revision: str | None = None,
        system_message: str | None = None,
        template: dict[str, Any] | None = None,
        strip_token: str | None = None,
        length: int = 512,
        pad_multiple: int | None = None,
        dtype: str = "bfloat16",
        batch_size: int = 8,
        structure: dict[str, Any] | None = None,
        tokenizer: str | None = None,
        tokenizer_revision: str | None = None,
        variant: str | None = None,
    ) -> None:
        check_dtype(dtype, "text.dtype", "single activations of these models pass 65504")
        self.weights = None if weights is None else str(weights)
        self.subfolder, self.tokenizer_subfolder, self.structure = subfolder, tokenizer_subfolder, structure
        self.tokenizer, self.tokenizer_revision, self.variant = tokenizer, tokenizer_revision, variant
        self.kind, self.layers, self.revision = kind, tuple(layers), revision
        self.system_message, self.template, self.strip_token = system_message, dict(template or {}), strip_token
        self.length, self.pad_multiple, self.dtype, self.batch_size = length, pad_multiple, dtype, batch_size
        self.device = torch.device("cpu")
        self._model: tuple[Any, Any] | None = None

    @cached_property
    def _folders(self) -> tuple[Path, Path]:
        if self.weights is None:
            cure = "text.weights=FOLDER, which holds text_encoder/ and tokenizer/"
            raise ConfigError(f"no weights for {self.kind}", where="text.weights", cure=cure)
        subfolders = (self.subfolder, self.tokenizer_subfolder, encoder_file.CHAT_PART)
        words = (self.tokenizer, self.tokenizer_revision)
        places = locate(self.weights, self.revision, *subfolders, *words, variant=self.variant)
        self._require_layers(places[0])
        pretrained.require_encoder(self.kind, *places, encoder_file.CHAT_PART, self.structure, self.variant)
        return places

    def _require_layers(self, place: Path) -> None:
        """CheckpointMismatch if there are fewer layers than are read."""
        found = encoder_config.width_of(place, "num_hidden_layers", self.kind, self.structure)
        what = f"layer {max(self.layers)} is read and config.json has {found}"
        if place.is_file():
            found = min(found, encoder_file.depth(place))
            what = f"layer {max(self.layers)} is read and the file has {found}"
        if max(self.layers) > found:
            raise CheckpointMismatch(what, where=str(place), cure=f"give a folder of {self.kind} in the right size")

    @cached_property
    def text_spec(self) -> TextSpec:
        """Width from config.json, or `structure`; CheckpointMismatch if it has fewer layers than are read."""
        if self.weights is None and self.structure is not None:
            told = self.structure.get("text_config", self.structure)
            return TextSpec(width=told["hidden_size"] * len(self.layers), length=self.length, pooled=0)
        hidden = encoder_config.width_of(self._folders[0], "hidden_size", self.kind, self.structure)
        return TextSpec(width=hidden * len(self.layers), length=self.length, pooled=0)

    def skeletons(self) -> dict[str, Any]:
        """The encoder without values, on the meta device."""
        place = None if self.weights is None else self._folders[0]
        told = encoder_config.described(place, self.structure)
        return {self.name: encoder_config.skeleton(self.kind, told)}

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> TextEmbeddings:
        """Prompts -> embeddings."""
        prompts, size = list(prompts), 1 if self.pad_multiple else self.batch_size
        return TextEmbeddings.cat([self._encode(prompts[i : i + size]) for i in range(0, len(prompts), size)])

    def null(self) -> TextEmbeddings:
        """The unconditional: the empty prompt."""
        return self.encode([""])

    def lengths(self, prompts: Sequence[str]) -> list[PromptLength]:
        """How many tokens of each prompt, in its chat, are read, and how many are cut off."""
        chats = [self._chat(p) for p in prompts]
        make = self._tokenizer.apply_chat_template
        texts = [make(chat, tokenize=False, **self.template) for chat in chats]
        begins = self._tokenizer.bos_token
        special = begins is None or not texts[0].startswith(begins)  # else the template writes it
        return prompt_lengths(self._tokenizer, texts, self.length, special)

    @cached_property
    def _tokenizer(self) -> Any:
        return load_tokenizer(self._folders[1])

    def _encode(self, prompts: list[str]) -> TextEmbeddings:
        tokenizer, model = self._loaded()
        texts = [tokenizer.apply_chat_template(self._chat(p), tokenize=False, **self.template) for p in prompts]
        # the template writes the beginning of a text itself
        begins = tokenizer.bos_token is not None and texts[0].startswith(tokenizer.bos_token)
        options: dict[str, Any] = {"add_special_tokens": not begins, "truncation": True}
        length = self.length
        for prompt, ids in zip(prompts, tokenizer(texts, add_special_tokens=not begins)["input_ids"], strict=True):
            if len(ids) > self.length:
                what = f"a prompt of {len(ids)} tokens, its chat's own among them, is cut at {self.length}"
                warnings.warn(f"{what}: {prompt[:60]!r}", stacklevel=4)
        if self.pad_multiple:
            used = len(tokenizer(texts[0], max_length=self.length, **options)["input_ids"])
            length = min(-(-used // self.pad_multiple) * self.pad_multiple, self.length)
            options["padding_side"] = "right"
        read = tokenizer(texts, padding="max_length", max_length=length, return_tensors="pt", **options)
        ids, mask = read["input_ids"].to(self.device), read["attention_mask"].to(self.device)
        given: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
        if self.pad_multiple:  # FLUX.3 was trained with position 1 for all padding, which transformers has changed
            given["position_ids"] = torch.arange(length, device=ids.device)[None].masked_fill(mask == 0, 1)
        states = model(**given, output_hidden_states=True, use_cache=False).hidden_states
        tokens = torch.cat([states[k] for k in self.layers], dim=-1).float()
        everywhere = torch.ones(ids.shape, dtype=torch.bool, device=ids.device)
        return TextEmbeddings(tokens, everywhere, tokens.new_zeros(len(prompts), 0))

    def _chat(self, prompt: str) -> list[dict[str, Any]]:
        prompt = prompt.replace(self.strip_token, "") if self.strip_token else prompt
        if self.system_message is None:
            return [{"role": "user", "content": prompt}]
        turns = (("system", self.system_message), ("user", prompt))
        return [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in turns]

    def config(self) -> dict[str, Any]:
        """What rebuilds this encoder."""
        names = "weights kind subfolder tokenizer_subfolder revision system_message template strip_token"
        sizes = "length pad_multiple dtype batch_size structure tokenizer tokenizer_revision variant"
        found = {name: getattr(self, name) for name in (*names.split(), *sizes.split())}
        return {**found, "layers": list(self.layers)}

    @cached_property
    def _hashes(self) -> dict[str, str]:
        return pretrained.hash_of(*self._folders, self.variant)

    def fingerprint(self) -> dict[str, Any]:
        """What decides the embeddings: files by content, the configuration, layers, chat, lengths, dtype."""
        names = ("system_message", "template", "strip_token", "length", "pad_multiple", "dtype")
        decides = {name: getattr(self, name) for name in names}
        config = pretrained.decides(self.kind, self._folders[0], self.structure)
        told = {"text": self.name, "layers": list(self.layers), **decides}
        return {**told, "files": self._hashes, "config": config}

    def to(self, device: Any) -> "LanguageModelText":
        """Move, now or when loaded."""
        self.device = torch.device(device)
        if self._model is not None:
            self._model[1].to(self.device)
        return self

    def free(self) -> None:
        """Release the weights; the next use reads them again."""
        self._model = None

    def _loaded(self) -> tuple[Any, Any]:
        if self._model is None:
            encoder, tokenizer = self._folders
            words = pretrained.tokenizer_for(self.kind, encoder, tokenizer, self.structure)
            told = (encoder_file.CHAT_PART, self.structure, self.variant)
            self._model = (words, pretrained.load_encoder(self.kind, encoder, self.dtype, self.device, *told))
        return self._model
