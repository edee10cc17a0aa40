"""Hidden states of a chat model, several layers side by side: what FLUX.2 and FLUX.3 read."""

import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from tinyflux_pl.core.errors import CheckpointMismatch, ConfigError
from tinyflux_pl.core.files import read_object
from tinyflux_pl.core.precision import check_dtype
from tinyflux_pl.core.specs import TextSpec
from tinyflux_pl.core.types import TextEmbeddings
from tinyflux_pl.text import pretrained
from tinyflux_pl.text.encoder_place import locate


class LanguageModelText:
    """tokens (B, L, layers x hidden): the states after each of `layers`, concatenated; pooled (B, 0); fp32 out.

    The prompt is the user's turn of a chat (after `system_message`, if there is one), written by the
    tokenizer's own template with the options `template`. The encoder is told what is padding; the mask
    that comes out is True everywhere, since these image models attend to their padding. L is `length`, or,
    with `pad_multiple`, the prompt's own length rounded up to it: prompts of one batch may then differ,
    and what pads the shorter ones is False. `structure` says what the encoder is where no folder does.
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
    ) -> None:
        check_dtype(dtype, "text.dtype", "single activations of these models pass 65504")
        self.weights = None if weights is None else str(weights)
        self.subfolder, self.tokenizer_subfolder, self.structure = subfolder, tokenizer_subfolder, structure
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
        return locate(self.weights, self.revision, self.subfolder, self.tokenizer_subfolder)

    @cached_property
    def text_spec(self) -> TextSpec:
        """Width from config.json, or `structure`; CheckpointMismatch if it has fewer layers than are read."""
        if self.weights is None and self.structure is not None:
            told = self.structure.get("text_config", self.structure)
            return TextSpec(width=told["hidden_size"] * len(self.layers), length=self.length, pooled=0)
        encoder = self._folders[0]
        hidden = pretrained.width_of(encoder, "hidden_size", self.kind)
        found = pretrained.width_of(encoder, "num_hidden_layers", self.kind)
        if max(self.layers) > found:
            what = f"layer {max(self.layers)} is read and config.json has {found}"
            raise CheckpointMismatch(what, where=str(encoder), cure=f"give a folder of {self.kind} in the right size")
        return TextSpec(width=hidden * len(self.layers), length=self.length, pooled=0)

    def skeletons(self) -> dict[str, Any]:
        """The encoder without values, on the meta device."""
        if self.weights is None and self.structure is not None:
            told = self.structure
        else:
            told = read_object(self._folders[0] / "config.json")
        return {self.name: pretrained.skeleton(self.kind, told)}

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> TextEmbeddings:
        """Prompts -> embeddings."""
        prompts, size = list(prompts), 1 if self.pad_multiple else self.batch_size
        return TextEmbeddings.cat([self._encode(prompts[i : i + size]) for i in range(0, len(prompts), size)])

    def null(self) -> TextEmbeddings:
        """The unconditional: the empty prompt."""
        return self.encode([""])

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
        sizes = "length pad_multiple dtype batch_size structure"
        found = {name: getattr(self, name) for name in (*names.split(), *sizes.split())}
        return {**found, "layers": list(self.layers)}

    @cached_property
    def _hashes(self) -> dict[str, str]:
        return pretrained.hash_of(*self._folders)

    def fingerprint(self) -> dict[str, Any]:
        """What decides the embeddings: files by content, layers, chat, lengths, dtype."""
        names = ("system_message", "template", "strip_token", "length", "pad_multiple", "dtype")
        decides = {name: getattr(self, name) for name in names}
        return {"text": self.name, "layers": list(self.layers), **decides, "files": self._hashes}

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
            model = pretrained.load_encoder(self.kind, encoder, self.dtype, self.device)
            self._model = (pretrained.load_tokenizer(tokenizer), model)
        return self._model
