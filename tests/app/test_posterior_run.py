"""codec.posterior=sampled: caches hold mean and deviation, each training step draws its own."""

import pytest

from tests import releases_flux1
from tests.app.runs import SMALLEST, run
from tinyflux_pl.cache.dataset import DEVIATION
from tinyflux_pl.cache.store import CacheStore
from tinyflux_pl.core.errors import StaleCache

LINE = (
    *("model=tiny", *SMALLEST, "experts=none", "codec=flux1", "model.patch_size=1", "steps=2"),
    *("data.sources.shapes.train.count=4", "data.sources.shapes.validation.count=2"),
    *("data.evaluation_prompts=0", "hardware.batch_size=2", "callbacks.preview.count=1"),
    "callbacks.log_every_steps=1",
)


def losses(root, name):
    header, *rows = (root / "outputs" / name / "csv" / "metrics.csv").read_text().splitlines()
    column = header.split(",").index("train/loss")
    return [row.split(",")[column] for row in rows if row.split(",")[column]]


def test_a_run_caches_the_deviation_and_draws_by_seed_and_step(tmp_path):
    release = releases_flux1.flux1(tmp_path / "release", "schnell")
    line = (*LINE, f"codec.weights='{release}'", "codec.posterior=sampled")
    for name in ("first", "second"):
        run("train", tmp_path, *line, f"run={name}")
    store = CacheStore.open(tmp_path / "cache" / "shapes" / "train")
    mean, deviation = (store.gather(key, range(4)) for key in ("latents", DEVIATION))
    assert mean.shape == deviation.shape and bool((deviation > 0).any())
    assert losses(tmp_path, "first") == losses(tmp_path, "second") != []
    with pytest.raises(StaleCache, match=r'posterior: cache "sampled", run has none'):
        run("train", tmp_path, *line[:-1], "run=third")
