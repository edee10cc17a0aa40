"""Values that are passed between packages: text, conditioning, predictions, batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tinyflux_pl.core.transfer import pinned, to_device


@dataclass(frozen=True)
class TextEmbeddings:
    """Encoded prompts: tokens (B, L, D), mask (B, L) True on real tokens, pooled (B, P)."""

    tokens: Float[Tensor, "b l d"]
    mask: Bool[Tensor, "b l"]
    pooled: Float[Tensor, "b p"]

    def __len__(self) -> int:
        return self.tokens.shape[0]

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> TextEmbeddings:
        """Move to a device; `dtype` applies to tokens and pooled."""
        typed = (
            self
            if dtype is None
            else replace(self, tokens=self.tokens.to(dtype), pooled=self.pooled.to(dtype))
        )
        return typed.each(lambda tensor: to_device(tensor, device))

    def each(self, change: Callable[[Tensor], Tensor]) -> TextEmbeddings:
        """Apply `change` to every tensor."""
        return TextEmbeddings(change(self.tokens), change(self.mask), change(self.pooled))

    def select(self, index: Tensor | slice) -> TextEmbeddings:
        """Select rows."""
        return TextEmbeddings(self.tokens[index], self.mask[index], self.pooled[index])

    def __getitem__(self, index: Tensor | slice) -> TextEmbeddings:
        return self.select(index)

    def expand(self, batch: int) -> TextEmbeddings:
        """Repeat one row `batch` times (no copy)."""
        return TextEmbeddings(
            self.tokens.expand(batch, -1, -1),
            self.mask.expand(batch, -1),
            self.pooled.expand(batch, -1),
        )

    def padded(self, length: int) -> TextEmbeddings:
        """Pad tokens and mask with zeros, or cut padding off, to `length`."""
        extra = length - self.tokens.shape[1]
        tokens = torch.nn.functional.pad(self.tokens, (0, 0, 0, extra))
        return TextEmbeddings(tokens, torch.nn.functional.pad(self.mask, (0, extra)), self.pooled)

    def lengths(self) -> list[int]:
        """Number of real tokens of each row.

        On the meta device, which has no values, all of them.
        """
        return [self.mask.shape[1]] * len(self) if self.mask.is_meta else self.mask.sum(1).tolist()

    def trimmed(self) -> TextEmbeddings:
        """Remove the columns that are padding in every row (at least one column stays)."""
        used = int(self.mask.any(0).nonzero().max()) + 1 if bool(self.mask.any()) else 1
        return TextEmbeddings(self.tokens[:, :used], self.mask[:, :used], self.pooled)

    def where(self, keep: Bool[Tensor, " b"], other: TextEmbeddings) -> TextEmbeddings:
        """Select rows of self where `keep`, else the (single) row of `other`."""
        other = (
            other.padded(self.tokens.shape[1])
            if other.tokens.shape[1] < self.tokens.shape[1]
            else other
        )
        text = (
            self
            if self.tokens.shape[1] == other.tokens.shape[1]
            else self.padded(other.tokens.shape[1])
        )
        return TextEmbeddings(
            torch.where(keep[:, None, None], text.tokens, other.tokens.to(text.tokens)),
            torch.where(keep[:, None], text.mask, other.mask.to(text.mask.device)),
            torch.where(keep[:, None], text.pooled, other.pooled.to(text.pooled)),
        )

    @staticmethod
    def cat(parts: Sequence[TextEmbeddings]) -> TextEmbeddings:
        """Stack batches, padded to the longest."""
        length = max(p.tokens.shape[1] for p in parts)
        parts = [p.padded(length) for p in parts]
        return TextEmbeddings(
            *(torch.cat([getattr(p, n) for p in parts]) for n in ("tokens", "mask", "pooled"))
        )


@dataclass(frozen=True)
class PromptLength:
    """Tokens of a prompt: those that an encoder reads, and those cut off at its length."""

    read: int
    cut: int


TARGET = ("target_ids", "target_mask")  # fields of targets that are sequences
VELOCITY = "velocity"  # the column of a teacher's predictions, of the latents' shape a bucket


@dataclass(frozen=True)
class Conditioning:
    """Everything a denoiser receives besides x_t and t: text, ports of experts, pictures, ids.

    `ports` maps a port's name to a tensor for the batch, e.g. vec (B, E), prior_stats (B, S),
    prior_map (B, H8, W8). `port_mask` maps it to (B,) bool: False where the net's own head
    must be used instead (expert dropout). `references` are clean normalised latents (B, C, Hr, Wr),
    one tensor a picture (Kontext). `inpaint` (B, C + d * d, H, W) are the latents of the picture,
    mid-grey where it is masked, then the mask folded into latent cells of d x d pixels, 1 where to
    paint (Fill). `size_ids` (B, 6): original height and width, crop top and left, target height and
    width (SDXL). In sampling any part may have a single row, which applies to all.
    `target_ids` (B, N, A) are position ids of a sequence's tokens; `target_mask` is False on
    padding. `hint` is the map of a control branch, in the form that its network reads
    (core.hint_forms).
    """

    text: TextEmbeddings
    ports: dict[str, Tensor] = field(default_factory=dict)
    port_mask: dict[str, Tensor] = field(default_factory=dict)
    embedded_guidance: Float[Tensor, " _b"] | None = None
    references: tuple[Tensor, ...] = ()
    inpaint: Float[Tensor, "_b k h w"] | None = None
    size_ids: Float[Tensor, "_b 6"] | None = None
    target_ids: Float[Tensor, "b n a"] | None = None
    target_mask: Bool[Tensor, "b n"] | None = None
    hint: Float[Tensor, "_b _k _h _w"] | None = None

    def rows(self, change: Callable[[Any], Any]) -> Conditioning:
        """Apply `change` to the text and to every tensor, e.g. a selection or a move."""

        def maybe(value: Any) -> Any:
            return None if value is None else change(value)

        return Conditioning(
            change(self.text),
            {name: change(value) for name, value in self.ports.items()},
            {name: change(value) for name, value in self.port_mask.items()},
            maybe(self.embedded_guidance),
            tuple(change(reference) for reference in self.references),
            maybe(self.inpaint),
            maybe(self.size_ids),
            maybe(self.target_ids),
            maybe(self.target_mask),
            maybe(self.hint),
        )


@dataclass(frozen=True)
class Prediction:
    """A denoiser's output in its own `prediction` space, and the outputs of its expert heads."""

    sample: Float[Tensor, "b c h w"]
    heads: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Batch:
    """Cached samples: normalised latents, text, the experts' buckets, masks, identities.

    `experts` maps "lune.features" to (B, K, E), "sol.stats" to (B, K, 4), "sol.spatial" to
    (B, K, 8, 8). `sample_ids` (B,) are 63-bit content hashes, `dataset_ids` (B,) the source.
    `expert_present` maps "lune" to (B,) bool: a source without that expert is absent, not zero.
    `references`, `inpaint`, `size_ids`, `target_ids`, `target_mask` and `hint`: see Conditioning.
    """

    latents: Float[Tensor, "b c h w"]
    text: TextEmbeddings
    sample_ids: Int[Tensor, " b"]
    dataset_ids: Int[Tensor, " b"]
    captions: list[str]
    experts: dict[str, Tensor] = field(default_factory=dict)
    expert_present: dict[str, Tensor] = field(default_factory=dict)
    masks: Float[Tensor, "b h w"] | None = None
    step: int = 0
    references: tuple[Tensor, ...] = ()
    inpaint: Float[Tensor, "b k h w"] | None = None
    size_ids: Float[Tensor, "b 6"] | None = None
    target_ids: Float[Tensor, "b n a"] | None = None
    target_mask: Bool[Tensor, "b n"] | None = None
    hint: Float[Tensor, "b _k _h _w"] | None = None

    def __len__(self) -> int:
        return self.latents.shape[0]

    def conditioning(
        self,
        text: TextEmbeddings | None = None,
        ports: dict[str, Tensor] | None = None,
        port_mask: dict[str, Tensor] | None = None,
    ) -> Conditioning:
        """The conditioning of this batch; `text` replaces the batch's text."""
        names = ("references", "inpaint", "size_ids", "hint", *TARGET)
        pictures = {name: getattr(self, name) for name in names}
        return Conditioning(
            self.text if text is None else text, ports or {}, port_mask or {}, **pictures
        )

    def to(self, device: torch.device | str) -> Batch:
        """Move to a device (Lightning calls this); ids are read by the host and stay there."""
        return self._each(lambda tensor: to_device(tensor, device))

    def pin_memory(self) -> Batch:
        """Move to page-locked memory (the DataLoader calls this)."""
        return self._each(pinned)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """Apply `change` to every tensor that the device reads."""
        names = ("masks", "inpaint", "size_ids", "hint", *TARGET)
        optional = {name: getattr(self, name) for name in names}
        return replace(
            self,
            latents=change(self.latents),
            text=self.text.each(change),
            experts={name: change(tensor) for name, tensor in self.experts.items()},
            expert_present={name: change(tensor) for name, tensor in self.expert_present.items()},
            references=tuple(change(reference) for reference in self.references),
            **{
                name: None if tensor is None else change(tensor)
                for name, tensor in optional.items()
            },
        )
