"""The key layouts of adapter files: detection, and the meaning of each key.

peft:      base_model.model.LAYER.lora_A.weight           strength in adapter_config.json
diffusers: transformer.LAYER.lora_A.weight, unet.LAYER...  strength folded in, or in the metadata
kohya:     lora_unet_LAYER.lora_down.weight, .alpha        underscores for dots; LyCORIS' LoKr
tinyflux:  LAYER.lora_A, .lora_A.0 ...                     underscores; ranks in the metadata
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tinyflux_pl.core.errors import CheckpointMismatch
from tinyflux_pl.weights.key_diff import listed

PEFT, DIFFUSERS, KOHYA, TINYFLUX = "peft", "diffusers", "kohya", "tinyflux"
DOWN, UP, ALPHA, MAGNITUDE = "down", "up", "alpha", "magnitude"
_SLOTS = {
    "lora_A": DOWN,
    "lora_B": UP,
    "lora_down": DOWN,
    "lora_up": UP,
    "lora.down": DOWN,
    "lora.up": UP,
    "lora_magnitude_vector": MAGNITUDE,
    "alpha": ALPHA,
}
_FACTOR = r"(?P<slot>lora_[AB]|lora_magnitude_vector)(?:\.default)?(?:\.weight)?"
_LOKR = r"(?P<lokr>lokr_w[12](?:_[ab])?)(?:\.default)?"
_PATTERNS = {
    PEFT: rf"base_model\.model\.(?P<layer>.+?)\.(?:{_FACTOR}|{_LOKR})",
    KOHYA: rf"(?:lora_unet|lora_transformer|lycoris)_(?P<layer>\w+)\."
    rf"(?:(?P<slot>lora_down|lora_up)\.weight|(?P<alpha>alpha)|{_LOKR})",
    DIFFUSERS: r"(?:transformer|unet|diffusion_model)\.(?P<layer>.+?)\."
    rf"(?:{_FACTOR}|(?P<old>lora\.(?:down|up))\.weight|(?P<alpha>alpha)|{_LOKR})",
    TINYFLUX: r"(?P<layer>\w+)\.(?P<slot>lora_[AB])(?:\.(?P<depth>\d+))?",
}
_TEXT = re.compile(r"^(lora_te\d?_|text_encoder(_\d)?\.|te\d?_)")


@dataclass(frozen=True)
class Key:
    """The layer and slot (down, up, alpha, magnitude, lokr_w1, ...) that a key names.

    `depth` numbers the products of a TinyFlux adapter at one layer.
    """

    layer: str
    slot: str
    depth: int = 0


def layout_of(keys: Iterable[str], where: str) -> tuple[str, Mapping[str, Key]]:
    """The layout that reads every key of a file, and the meaning of each.

    CheckpointMismatch names keys that belong to no layout, and those of a text encoder.
    """
    keys = list(keys)
    if texts := [key for key in keys if _TEXT.search(key)]:
        raise CheckpointMismatch(
            f"{len(texts):,} of {len(keys):,} tensors change a text encoder, which is not adapted "
            f"here: {listed(dict.fromkeys(texts, ''))}",
            where=where,
            cure="give the adapter of the network alone",
        )
    read = {
        layout: {key: parsed for key in keys if (parsed := _parsed(pattern, key))}
        for layout, pattern in _PATTERNS.items()
    }
    layout = max(read, key=lambda name: len(read[name]))
    unread = [key for key in keys if key not in read[layout]]
    if unread or not keys:
        raise CheckpointMismatch(
            f"not an adapter in a known layout ({', '.join(_PATTERNS)}); {len(unread):,} of "
            f"{len(keys):,} keys are none of {layout}'s: {listed(dict.fromkeys(unread, ''))}",
            where=where,
            cure="give a LoRA (or LoKr) of linear layers, as a .safetensors file or a run's folder",
        )
    return layout, read[layout]


def _parsed(pattern: str, key: str) -> Key | None:
    match = re.fullmatch(pattern, key)
    if match is None:
        return None
    groups = match.groupdict()
    name = groups.get("slot") or groups.get("old") or groups.get("alpha")
    slot = _SLOTS[name] if name else str(groups["lokr"])
    return Key(groups["layer"], slot, int(groups.get("depth") or 0))
