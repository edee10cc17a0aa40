"""The synthetic tasks reproduce recorded pixels, captions, fingerprints and prompts bit for bit.

A change makes the task's caches stale: raise its version and record the hashes again. A change
makes the task's caches stale: raise its version and record the hashes again.
"""

import hashlib
import json

import pytest

from tinyflux_pl.data.tasks.digits.records import Digits
from tinyflux_pl.data.tasks.scenes.records import Scenes
from tinyflux_pl.data.tasks.shapes.records import Shapes

INDICES = (0, 1, 7, 99)
RECORDED = {
    "shapes/train": "96d7811b7265ab13",
    "shapes/train/fingerprint": "3cffd15cb7e42241",
    "shapes/validation": "f5e312fa5774f26a",
    "shapes/validation/fingerprint": "c8f340a156a170fd",
    "shapes/held_out": "6f6a7c5857aaeb02",
    "shapes/held_out/fingerprint": "09c1f788bd37a2f9",
    "shapes/train/prompts": "3c4d3a71c41a6413",
    "shapes/held_out/prompts": "48276072ebdbec28",
    "shapes/short/prompts": "d43de90ea29a402a",
    "scenes/train": "6ae74657c95e8c11",
    "scenes/train/fingerprint": "dd92606821cd3fcc",
    "scenes/validation": "75c73600e35f1945",
    "scenes/validation/fingerprint": "7bd4cb1f6e9fd461",
    "scenes/held_out": "d385ace6d14619e8",
    "scenes/held_out/fingerprint": "8055c3cab1c48d6b",
    "scenes/train/prompts": "8ee17a8fdd308eeb",
    "scenes/held_out/prompts": "75b6580ac8e9494d",
    "digits/train": "f4d0cb1ae303b680",
    "digits/train/fingerprint": "768142e32b9401e9",
    "digits/validation": "8a96eb5d32b81fd2",
    "digits/validation/fingerprint": "55dfbbc690481481",
    "digits/reader": "b18568ee6e32a7d3",
    "digits/reader/fingerprint": "ff7d343260873420",
    "digits/train/prompts": "d08a6b4e289d313d",
}


def digest(*parts):
    content = b"".join(
        p if isinstance(p, bytes) else json.dumps(p, sort_keys=True).encode() for p in parts
    )
    return hashlib.sha256(content).hexdigest()[:16]


def of_records(source):
    """Everything in a few records: pixels, mask, caption, id, source and attributes."""
    parts = []
    for index in INDICES:
        record = source[index]
        mask = b"" if record.mask is None else record.mask.tobytes()
        plain = [record.caption, record.sample_id, record.source, record.attributes]
        parts += [record.image.tobytes(), mask, plain]
    return digest(*parts)


TASKS = {"shapes": (Shapes, {"seed": 3}), "scenes": (Scenes, {"seed": 3}), "digits": (Digits, {})}
SPLITS = {
    "shapes": ("train", "validation", "held_out"),
    "scenes": ("train", "validation", "held_out"),
    "digits": ("train", "validation", "reader"),
}
PROMPTS = {
    "shapes": ("train", "held_out", "short"),
    "scenes": ("train", "held_out"),
    "digits": ("train",),
}


def computed():
    hashes = {}
    for name, (cls, options) in TASKS.items():
        for split in SPLITS[name]:
            source = cls(split, count=100, size=48, **options)
            hashes[f"{name}/{split}"] = of_records(source)
            hashes[f"{name}/{split}/fingerprint"] = digest(source.fingerprint())
        for split in PROMPTS[name]:
            hashes[f"{name}/{split}/prompts"] = digest(source.prompts(50, split, seed=5))
    return hashes


@pytest.fixture(scope="module")
def hashes():
    return computed()


@pytest.mark.parametrize("name", RECORDED)
def test_records_equal_the_recorded_ones(hashes, name):
    assert hashes[name] == RECORDED[name]


def test_every_split_is_recorded(hashes):
    assert hashes.keys() == RECORDED.keys()
