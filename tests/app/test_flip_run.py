"""data.flip=true: the cache holds mirror images, and asking for them makes an older one stale."""

import json

import pytest

from tests.app.runs import SMALLEST, photographs, run
from tinyflux_pl.cache.store import CacheStore
from tinyflux_pl.core.errors import StaleCache


def test_a_run_draws_mirror_images_from_its_cache(tmp_path, capsys):
    folder = photographs(tmp_path / "photos", ("coffee", "rocket", "coins", "camera"), side=32)
    line = ("data=folder", f"data.root='{folder}'", "data.image_size=16", *SMALLEST, "steps=2")
    with_flips = (*line, "data.flip=true", "preflight=true")
    losses = []
    for name in ("first", "second"):
        run("train", tmp_path, *with_flips, f"run={name}")
        results = json.loads((tmp_path / "outputs" / name / "results.json").read_text())
        losses.append(results["validation_loss"])
    assert losses[0] == losses[1]
    store = CacheStore.open(tmp_path / "cache" / "folder" / "train")
    assert "flipped.latents" in store.layout("encodings")
    with pytest.raises(StaleCache, match="flip: cache true, run has none"):
        run("train", tmp_path, *line, "run=third")
