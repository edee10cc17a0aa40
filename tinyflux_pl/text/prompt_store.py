"""Text embeddings cached on disk by content, so that known prompts load no encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from tinyflux_pl.core import files
from tinyflux_pl.core.errors import TinyFluxError
from tinyflux_pl.core.fingerprint import hash_json
from tinyflux_pl.core.protocols import TextEncoder
from tinyflux_pl.core.types import Conditioning, PromptLength, TextEmbeddings


class StoredPrompts(TextEncoder):
    """An encoder that stores embeddings in `folder`, one file per list of prompts.

    The file is named by the hash of the encoder's fingerprint and of the prompts. A list counts as
    one, since the last bits of an embedding depend on the batch. The files hold embeddings, not
    prompts; one that cannot be read is made again.
    """

    def __init__(self, encoder: TextEncoder, folder: Path) -> None:
        self.encoder = encoder
        self.folder = folder
        self.name, self.dtype = encoder.name, encoder.dtype
        self.sequential = encoder.sequential
        self.condition_argument = encoder.condition_argument
        self.device = torch.device("cpu")

    @property
    def text_spec(self) -> Any:
        """The encoder's specification."""
        return self.encoder.text_spec

    def encode(self, prompts: Sequence[str]) -> TextEmbeddings:
        """The stored embeddings of this list, or the encoder's, which are then stored."""
        return self._stored({"prompts": list(prompts)}, lambda: self.encoder.encode(prompts))

    def null(self) -> TextEmbeddings:
        """The stored unconditional, or the encoder's."""
        return self._stored({"null": True}, self.encoder.null)

    def _stored(self, key: dict[str, Any], encode: Any) -> TextEmbeddings:
        identity = {"encoder": self.encoder.fingerprint(), "device": self.device.type, **key}
        file = self.folder / f"{hash_json(identity)}.safetensors"
        stored = self._read(file)
        if stored is not None:
            return stored.to(self.device)
        text = encode()
        tensors = {"tokens": text.tokens, "mask": text.mask, "pooled": text.pooled}
        cpu = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        self.folder.mkdir(parents=True, exist_ok=True)
        files.write_tensors(file, cpu, {})
        return text

    def _read(self, file: Path) -> TextEmbeddings | None:
        """The embeddings in a file; None if it is missing or of other widths."""
        if not file.is_file():
            return None
        try:
            stored = files.read_tensors(file)
            text = TextEmbeddings(stored["tokens"], stored["mask"], stored["pooled"])
        except (OSError, TinyFluxError, KeyError):  # truncated: it is made again
            return None
        spec = self.text_spec
        widths = (text.tokens.shape[-1:], text.pooled.shape[-1:])
        return text if widths == ((spec.width,), (spec.pooled,)) else None

    def lengths(self, prompts: Sequence[str]) -> list[PromptLength]:
        """As the encoder does."""
        return self.encoder.lengths(prompts)

    def config(self) -> dict[str, Any]:
        """As the encoder does."""
        return self.encoder.config()

    def fingerprint(self) -> dict[str, Any]:
        """As the encoder does."""
        return self.encoder.fingerprint()

    def to(self, device: torch.device | str) -> TextEncoder:
        """Move the encoder, and embeddings that are read."""
        self.device = torch.device(device)
        self.encoder.to(device)
        return self

    def moved_by(self, move: Callable[[str, Any], None]) -> None:
        """As the encoder does."""
        self.encoder.moved_by(move)

    def free(self) -> None:
        """Release the encoder's weights."""
        self.encoder.free()

    def with_target_ids(self, cond: Conditioning, prompts: Sequence[str]) -> Conditioning:
        """As the encoder does."""
        return self.encoder.with_target_ids(cond, prompts)
