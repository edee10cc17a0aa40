"""Fault 8, caches: a flipped bit of a store is detected by `doctor` and by the first read."""

import os
import random
import shlex
import sys

import pytest
from torch.utils.data import DataLoader

from tests.app.runs import configuration
from tests.faults import caching
from tests.faults.conftest import times
from tinyflux_pl.app import run as recipes
from tinyflux_pl.app.caches import doctor
from tinyflux_pl.cache.dataset import CachedDataset, collate
from tinyflux_pl.cache.store import CacheStore
from tinyflux_pl.config import schema
from tinyflux_pl.core.errors import CorruptStore

EXPERTS = ("lune", "sol")
FLIPS = 100


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = caching.make(tmp_path_factory.mktemp("world") / "world", pretrained=False)
    caching.extract(root, pretrained=False)
    return root


@pytest.fixture(scope="module")
def flips(world):
    """(file, place, bit): every file of the training store once, and others at random."""
    folder, drawn = world / "cache" / "folder" / "train", random.Random(0)
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and not p.name.endswith(".lock")]
    chosen = files + [drawn.choice(files) for _ in range(FLIPS - len(files))]
    return [(file, drawn.randrange(file.stat().st_size), drawn.randrange(8)) for file in chosen]


class Flipped:
    """A file with one bit turned over, as long as the block lasts."""

    def __init__(self, file, offset, bit):
        self.file, self.content = file, file.read_bytes()
        self.damaged = bytearray(self.content)
        self.damaged[offset] ^= 1 << bit

    def __enter__(self):
        self.file.write_bytes(self.damaged)

    def __exit__(self, *_):
        self.file.write_bytes(self.content)


def rows_of(root, workers=0):
    """Every row, as training asks for them."""
    data = CachedDataset(CacheStore.open(root / "cache" / "folder" / "train"), EXPERTS)
    list(DataLoader(data, batch_size=2, collate_fn=collate, num_workers=workers))


def test_doctor_finds_every_flip(world, flips, tmp_path, capsys, figure):
    config = schema.read(
        configuration("extract", tmp_path, f"doctor='{world / 'cache'}'"), "extract"
    )
    assert doctor.run(config) == 0
    detected = 0
    for file, *where in flips:
        capsys.readouterr()
        with Flipped(file, *where):
            code, output = (
                doctor.run(config),
                "".join(capsys.readouterr().out.split()).replace("│", ""),
            )
        detected += code == 1 and file.stem in output and "repair=true" in output
    assert doctor.run(config) == 0
    figure(8, "bit flips in a cache found by doctor", detected, len(flips))


def test_a_run_finds_every_flip_at_its_first_read(world, flips, figure):
    rows_of(world)
    detected = 0
    for flip in flips:
        with Flipped(*flip):
            try:
                rows_of(world)
            except CorruptStore as error:
                detected += error.where.startswith(str(flip[0].with_suffix("")))
    rows_of(world)
    figure(8, "bit flips in a cache found at first read", detected, len(flips))


def test_worker_processes_find_every_flip(world, flips, figure):
    shards = [flip for flip in flips if flip[0].suffix == ".safetensors"][: times(2, 10)]
    detected = 0
    for flip in shards:
        with (
            Flipped(*flip),
            pytest.raises(CorruptStore, match=r"is not that of what was written|damaged"),
        ):
            rows_of(world, workers=1)
        detected += 1
    figure(8, "bit flips in a cache found by worker processes", detected, len(shards))


def test_training_stops_at_a_flip_and_its_cure_repairs_it(world, flips, tmp_path, capsys, figure):
    """The suggested command is run literally; the next extraction writes only that shard."""
    expected, passed = caching.content(world), 0
    kinds = {flip[0].relative_to(world).parts[-2:]: flip for flip in flips}
    chosen = random.Random(1).sample(sorted(kinds), times(3, 12))
    for name in chosen:
        file, *where = kinds[name]
        root = caching.copied(world, tmp_path / "_".join(name))
        Flipped(root / file.relative_to(world), *where).__enter__()
        with pytest.raises(CorruptStore) as caught:
            caching.extract(root, pretrained=False)
            rows_of(root)
        words = shlex.split(caught.value.cure.split(";")[0])
        assert (
            os.path.abspath(words[0]) == os.path.abspath(sys.executable)
            and words[1] == "extract.py"
        )
        assert words[2].startswith("doctor=") and words[3] == "repair=true"
        assert recipes.extract(configuration("extract", tmp_path, *words[2:])) == 0
        shards = {p: p.stat().st_mtime_ns for p in (root / "cache").rglob("shard_*.safetensors")}
        caching.extract(root, pretrained=False)
        written = [p.name for p, time in shards.items() if p.stat().st_mtime_ns != time]
        passed += caching.content(root) == expected and len(written) == name[1].startswith("shard")
    figure(8, "a damaged part is named, and it alone is written again", passed, len(chosen))
