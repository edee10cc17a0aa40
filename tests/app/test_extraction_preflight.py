"""Before it encodes, extract.py says what it will cache, and refuses a disk without space."""

import re

import pytest

from tests.app.runs import SMALLEST, run
from tinyflux_pl.app.preflight import disk_needs
from tinyflux_pl.cache.store import CacheStore
from tinyflux_pl.core.errors import DiskFull, StaleCache

LINE = (
    "experts=lune",
    "hardware.precision=32-true",
    "data.sources.shapes.train.count=8",
    "data.sources.shapes.validation.count=2",
)
UNITS = {"KiB": 2**10, "MiB": 2**20}


def test_extraction_says_its_samples_and_bytes_before_and_nothing_when_complete(tmp_path, capsys):
    run("extract", tmp_path, *LINE)
    printed = capsys.readouterr().out
    rows = re.findall(r"^  shapes/train: (\w+) +8 of 8, ([\d.]+) (KiB|MiB), \d+ s$", printed, re.M)
    assert [group for group, _, _ in rows] == ["encodings", "lune"]
    store = CacheStore.open(tmp_path / "cache" / "shapes" / "train")
    for group, number, unit in rows:
        files = (store.root / group).glob("shard_*.safetensors")
        written = sum(file.stat().st_size for file in files)
        assert float(number) * UNITS[unit] == pytest.approx(written, rel=0.25), group
    run("extract", tmp_path, *LINE)
    assert "to be cached" not in capsys.readouterr().out


def test_a_disk_without_room_is_refused_before_a_store_is_begun(tmp_path, monkeypatch):
    monkeypatch.setattr(disk_needs, "free_space", lambda folder: (10_000, None))
    with pytest.raises(DiskFull, match="the run will write"):
        run("extract", tmp_path, *LINE)
    assert not list(tmp_path.rglob("shard_*"))


def test_a_changed_codec_is_refused_before_samples_are_read(tmp_path):
    run("extract", tmp_path, *LINE, "experts=none")
    with pytest.raises(StaleCache):
        run("extract", tmp_path, *LINE, "codec.fold=4")


def test_the_budget_of_a_run_counts_the_time_of_its_caches(tmp_path, capsys):
    line = (*LINE, *SMALLEST, "hardware.batch_size=2", "callbacks.preview.count=1")
    run("train", tmp_path, *line, "preflight=only", "data.evaluation_prompts=2", "run=x")
    assert re.search(r"^  time .*caches \d+ s, training", capsys.readouterr().out, re.M)
