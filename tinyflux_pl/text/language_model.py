"""Hidden states of a chat model, several layers side by side: FLUX.2's and FLUX.3's text."""

import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch

from tinyflux_pl.core.errors import CheckpointMismatch, ConfigError
from tinyflux_pl.core.precision import check_dtype
from tinyflux_pl.core.specs import TextSpec
from tinyflux_pl.core.types import PromptLength, TextEmbeddings
from tinyflux_pl.text import encoder_config, encoder_file, simulation
from tinyflux_pl.text.locate_encoder import locate
from tinyflux_pl.text.pretrained_text import PretrainedText
from tinyflux_pl.text.tokenizer import prompt_lengths

KEY = "language_model"  # of its one network


class LanguageModelText(PretrainedText):
    """tokens (B, L, layers x hidden): the states after each of `layers`, concatenated.

    pooled (B, 0); fp32 out.

    The prompt is the user's turn of a chat (after `system_message`, if there is one), written by
    the tokenizer's own template with the options `template`. The encoder masks padding; the
    returned mask is True everywhere, since these image models attend to their padding. L is
    `length`, or, with `pad_multiple`, the prompt's token count rounded up to it: prompts of one
    batch may then differ, and the mask is False where shorter ones are padded. `weights` is a
    release, or a single file of the encoder, which may lack the layers that nothing reads; then
    `tokenizer` is a folder or repository that holds the tokenizer, and `structure` describes the
    encoder, as where nothing is on disk.
    """

    name = "language_model"
    parts: ClassVar[dict[str, str]] = {KEY: encoder_file.CHAT_PART}

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
        super().__init__(dtype, batch_size, variant, tokenizer, tokenizer_revision)
        self.weights = None if weights is None else str(weights)
        self.kind = kind
        self.kinds = {KEY: kind}
        self.layers = tuple(layers)
        self.subfolder = subfolder
        self.tokenizer_subfolder = tokenizer_subfolder
        self.revision = revision
        self.system_message = system_message
        self.template = dict(template or {})
        self.strip_token = strip_token
        self.length = length
        self.pad_multiple = pad_multiple
        self.structure = structure

    def _structure(self, key: str) -> dict[str, Any] | None:
        return self.structure

    def _small(self) -> dict[str, Any]:
        count = len(self.layers)  # every state that is read, one block after another
        structure = simulation.small_decoder(self.structure or {}, count)
        layers = list(range(1, count + 1))
        return {"weights": None, "structure": structure, "layers": layers, "dtype": "float32"}

    @property
    def _has_only_structures(self) -> bool:
        return self.weights is None and self.structure is not None

    def _inside(self, key: str) -> tuple[str, str]:
        return self.subfolder, self.tokenizer_subfolder

    def _locate(self, key: str) -> tuple[Path, Path]:
        if self.weights is None:
            cure = "text.weights=FOLDER, which holds text_encoder/ and tokenizer/"
            raise ConfigError(f"no weights for {self.kind}", where="text.weights", cure=cure)
        inside = (*self._inside(key), self.parts[key])
        tokenizer = (self.tokenizer, self.tokenizer_revision)
        path, folder = locate(
            self.weights, self.revision, *inside, *tokenizer, variant=self.variant
        )
        self._require_layers(path)
        return path, folder

    def _require_layers(self, path: Path) -> None:
        """Raise CheckpointMismatch if the encoder has fewer layers than are read."""
        source = "config.json"
        count = encoder_config.width_of(path, "num_hidden_layers", self.kind, self.structure)
        if path.is_file():
            source = "the file"
            count = min(count, encoder_file.depth(path))
        if max(self.layers) > count:
            what = f"layer {max(self.layers)} is read and {source} has {count}"
            raise CheckpointMismatch(
                what, where=str(path), cure=f"give a folder of {self.kind} in the right size"
            )

    @cached_property
    def text_spec(self) -> TextSpec:
        """Width from config.json, or `structure`.

        CheckpointMismatch if it has fewer layers than are read.
        """
        return TextSpec(self._width(KEY, "hidden_size") * len(self.layers), self.length, pooled=0)

    def encode(self, prompts: Sequence[str]) -> TextEmbeddings:
        """Prompts -> embeddings."""
        size = 1 if self.pad_multiple else self.batch_size
        batches = self._batches(self._expanded(prompts), size)
        with self._gradients():
            return TextEmbeddings.cat([self._encode(part) for part in batches])

    def lengths(self, prompts: Sequence[str]) -> list[PromptLength]:
        """Tokens of each prompt, with its chat template, that are read, and that are cut off."""
        texts = self._chat_texts(self._tokenizer, self._expanded(prompts))
        return prompt_lengths(
            self._tokenizer, texts, self.length, self._adds_bos(self._tokenizer, texts)
        )

    def _chat_texts(self, tokenizer: Any, prompts: Sequence[str]) -> list[str]:
        return [
            tokenizer.apply_chat_template(self._chat(p), tokenize=False, **self.template)
            for p in prompts
        ]

    def _adds_bos(self, tokenizer: Any, texts: Sequence[str]) -> bool:
        """True if the tokenizer adds special tokens, False if the chat template did already."""
        return tokenizer.bos_token is None or not texts[0].startswith(tokenizer.bos_token)

    def _encode(self, prompts: list[str]) -> TextEmbeddings:
        tokenizer, model = self._loaded(KEY)
        texts = self._chat_texts(tokenizer, prompts)
        special = self._adds_bos(tokenizer, texts)
        self._warn_of_cuts(prompts, tokenizer(texts, add_special_tokens=special)["input_ids"])
        options: dict[str, Any] = {"add_special_tokens": special, "truncation": True}
        length = self.length
        if self.pad_multiple:
            used = len(tokenizer(texts[0], max_length=self.length, **options)["input_ids"])
            length = min(-(-used // self.pad_multiple) * self.pad_multiple, self.length)
            options["padding_side"] = "right"
        encoding = tokenizer(
            texts, padding="max_length", max_length=length, return_tensors="pt", **options
        )
        ids = encoding["input_ids"].to(self.device)
        mask = encoding["attention_mask"].to(self.device)
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
        # FLUX.3 was trained with position 1 for all padding, which transformers has changed
        if self.pad_multiple:
            inputs["position_ids"] = torch.arange(length, device=ids.device)[None].masked_fill(
                mask == 0, 1
            )
        states = model(**inputs, output_hidden_states=True, use_cache=False).hidden_states
        tokens = torch.cat([states[k] for k in self.layers], dim=-1).float()
        attends_everywhere = torch.ones(ids.shape, dtype=torch.bool, device=ids.device)
        return TextEmbeddings(tokens, attends_everywhere, tokens.new_zeros(len(prompts), 0))

    def _warn_of_cuts(self, prompts: list[str], token_ids: Sequence[Sequence[int]]) -> None:
        for prompt, ids in zip(prompts, token_ids, strict=True):
            if len(ids) > self.length:
                what = (
                    f"a prompt of {len(ids)} tokens, its chat template included, is cut at "
                    f"{self.length}"
                )
                warnings.warn(f"{what}: {prompt[:60]!r}", stacklevel=5)

    def _chat(self, prompt: str) -> list[dict[str, Any]]:
        prompt = prompt.replace(self.strip_token, "") if self.strip_token else prompt
        if self.system_message is None:
            return [{"role": "user", "content": prompt}]
        turns = (("system", self.system_message), ("user", prompt))
        return [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in turns]

    def config(self) -> dict[str, Any]:
        """The constructor's arguments: they rebuild this encoder."""
        return {**super().config(), "layers": list(self.layers)}

    def fingerprint(self) -> dict[str, Any]:
        """Plain data that decides the embeddings: file hashes, config.json and settings."""
        return {
            "text": self.name,
            "layers": list(self.layers),
            "system_message": self.system_message,
            "template": self.template,
            "strip_token": self.strip_token,
            "length": self.length,
            "pad_multiple": self.pad_multiple,
            "dtype": self.dtype,
            "files": self._hashes[KEY],
            "config": self._deciding_configs()[KEY],
            **self._words_fingerprint(),
        }
