"""Records as columns of a store: latents, text, ids, masks and image conditions."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tinyflux_pl.cache.cached_text import COUNT, prefix_of
from tinyflux_pl.cache.dataset import DEVIATION
from tinyflux_pl.cache.flipped_columns import FLIPPED
from tinyflux_pl.codecs.inpaint_mask import inpaint_input
from tinyflux_pl.core.errors import ConfigError, DataError
from tinyflux_pl.core.hint_forms import HINT, LATENTS, PIXELS
from tinyflux_pl.core.protocols import Codec, TextEncoder
from tinyflux_pl.core.record import Record
from tinyflux_pl.core.size_conditioning import SIZE_IDS
from tinyflux_pl.core.types import TARGET


@torch.inference_mode()
def columns_of(
    records: list[Record],
    codec: Codec,
    text: TextEncoder,
    dtype: torch.dtype,
    device: torch.device | str,
    hint_form: str = LATENTS,
    variants: int = 1,
    flip: bool = False,
) -> dict[str, Tensor]:
    """Columns that `encode` would store of these records, without the captions."""
    pictures = image_columns(records, codec, dtype, device, len(records), hint_form, flip)
    columns = pictures | text_columns([r.captions for r in records], text, dtype, variants)
    codec.free()
    text.free()
    return columns


def images_of(records: list[Record]) -> Tensor:
    """Pixels (B, 3, H, W) in [-1, 1].

    What is no picture of bytes (sequences) as it is, channels first. DataError without pictures.
    """
    if without := [r.source for r in records if not r.has_picture]:
        cure = "leave out what reads pictures: this data has latents alone"
        raise DataError("there is no picture", where=without[0], cure=cure)
    pixels = torch.from_numpy(np.stack([r.image for r in records]))
    values = pixels.permute(0, 3, 1, 2).float()
    return values.div(127.5).sub(1) if pixels.dtype == torch.uint8 else values


def filled(block: list[Any], size: int) -> list[Any]:
    """Repeat records to the full batch size: kernels round by batch shape, so all are equal."""
    return [*block, *[block[-1]] * (size - len(block))]


def text_columns(
    captions: Sequence[Sequence[str]], text: TextEncoder, dtype: torch.dtype, variants: int = 1
) -> dict[str, Tensor]:
    """Embeddings of each record's captions, and where there are `variants` their number.

    Places that a record has no caption for are zero.
    """
    with warnings.catch_warnings():
        # counted, of all captions at once
        warnings.filterwarnings("ignore", "a prompt of .* is cut at")
        embeddings = text.encode([caption for texts in captions for caption in texts])
    parts = {
        "tokens": embeddings.tokens.to(dtype).cpu(),
        "mask": embeddings.mask.cpu(),
        "pooled": embeddings.pooled.to(dtype).cpu(),
    }
    counts = torch.tensor([len(texts) for texts in captions])
    first = counts.cumsum(0) - counts
    columns: dict[str, Tensor] = {} if variants == 1 else {COUNT: counts.to(torch.int32)}
    for number in range(variants):
        present = counts > number
        for name, part in parts.items():
            column = part.new_zeros(len(captions), *part.shape[1:])
            column[present] = part[first[present] + number]
            columns[f"{prefix_of(number)}.{name}"] = column
    return columns


def image_columns(
    block: list[Record],
    codec: Codec,
    dtype: torch.dtype,
    device: torch.device | str,
    batch: int,
    hint_form: str = LATENTS,
    flip: bool = False,
) -> dict[str, Tensor]:
    """Latents, ids, masks and conditions; with `flip` also latents, masks and maps mirrored."""
    columns = _plain_columns(block, codec, dtype, device, batch, hint_form)
    if not flip:
        return columns
    mirrored = [_mirrored(record) for record in block]
    flipped = _plain_columns(mirrored, codec, dtype, device, batch, hint_form)
    names = [name for name in ("latents", DEVIATION, "masks", HINT) if name in flipped]
    return columns | {f"{FLIPPED}{name}": flipped[name] for name in names}


def _mirrored(record: Record) -> Record:
    """The record with its picture, mask and map mirrored left to right.

    ConfigError for one with pictures beside it, which would have to be mirrored in step.
    """
    if record.references or record.inpaint_mask is not None:
        what = "data with references or inpaint masks have no mirror images"
        raise ConfigError(what, where="data.flip", cure="data.flip=false")
    parts = {"image": record.image, "mask": record.mask, "hint": record.hint}
    present = {name: np.asarray(part) for name, part in parts.items() if part is not None}
    return replace(record, **{n: np.ascontiguousarray(a[:, ::-1]) for n, a in present.items()})


def _plain_columns(
    block: list[Record],
    codec: Codec,
    dtype: torch.dtype,
    device: torch.device | str,
    batch: int,
    hint_form: str,
) -> dict[str, Tensor]:
    latents, deviation = codec.encode_moments(images_of(filled(block, batch)).to(device))
    latents = latents[: len(block)]
    columns = {
        "latents": latents.to(dtype).cpu(),
        "sample_ids": torch.tensor([r.sample_id for r in block], dtype=torch.int64),
    }
    if deviation is not None:
        columns[DEVIATION] = deviation[: len(block)].to(dtype).cpu()
    if all(r.mask is not None for r in block):
        masks = torch.from_numpy(np.stack([np.asarray(r.mask, np.float32) for r in block]))[:, None]
        columns["masks"] = torch.nn.functional.interpolate(masks, latents.shape[-2:], mode="area")[
            :, 0
        ].to(dtype)
    if SIZE_IDS in block[0].attributes:
        size_ids = [r.attributes[SIZE_IDS] for r in block]
        columns[SIZE_IDS] = torch.tensor(size_ids, dtype=torch.int32)
    for name in TARGET:
        if name in block[0].attributes:
            columns[name] = torch.from_numpy(np.stack([r.attributes[name] for r in block]))
    if block[0].hint is not None and hint_form == PIXELS:
        columns[HINT] = torch.from_numpy(np.stack([r.hint for r in block])).permute(0, 3, 1, 2)
    conditions = _image_conditions(filled(block, batch), codec, device)
    if block[0].hint is not None and hint_form == LATENTS:
        maps = [replace(r, image=r.hint) for r in filled(block, batch)]
        conditions[HINT] = codec.encode(images_of(maps).to(device))
    return columns | {
        name: value[: len(block)].to(dtype).cpu() for name, value in conditions.items()
    }


def _image_conditions(
    block: list[Record], codec: Codec, device: torch.device | str
) -> dict[str, Tensor]:
    """Columns of image conditions: reference.0, reference.1 ..., and inpaint."""
    columns = {}
    for k in range(len(block[0].references)):
        references = [replace(r, image=r.references[k]) for r in block]
        columns[f"reference.{k}"] = codec.encode(images_of(references).to(device))
    if block[0].inpaint_mask is not None:
        masks = torch.from_numpy(np.stack([np.asarray(r.inpaint_mask, np.float32) for r in block]))[
            :, None
        ]
        columns["inpaint"] = inpaint_input(codec, images_of(block).to(device), masks.to(device))
    return columns
