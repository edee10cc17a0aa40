"""Archives of arrays that are torn, foreign, changed or hostile: named, and never trusted."""

import random
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.data.sequences.test_files import arrays, written
from tinyflux_pl.core.errors import DataError
from tinyflux_pl.data.sequences import array_file
from tinyflux_pl.data.sequences.array_file import ArrayFile
from tinyflux_pl.data.sequences.files import Sequences


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_truncated_and_foreign_files_are_refused(tmp_path, suffix):
    path = written(tmp_path / f"a{suffix}", **arrays())
    original = path.read_bytes()
    for content in (original[: len(original) // 2], original[:30], b"", b"no arrays at all" * 9):
        path.write_bytes(content)
        with pytest.raises(DataError, match="not a complete"):
            ArrayFile(path)
    with pytest.raises(DataError, match=r"arrays come as"):
        ArrayFile(Path(__file__))


def test_a_forged_or_oversized_npz_is_refused_before_reading(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, condition=np.zeros((1000, 100, 10)), target=np.zeros((1000, 2, 2)))
    assert path.stat().st_size < 100_000
    with pytest.raises(DataError, match="GiB unpacked"):
        ArrayFile(path, max_bytes=10**6)
    with zipfile.ZipFile(path) as archive, archive.open("target.npy") as member:
        content = member.read()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("target.npy", content.replace(b"(1000, 2, 2)", b"(9000, 2, 2)"))
    with pytest.raises(DataError, match="its header says"):
        ArrayFile(path)
    assert array_file.MAX_BYTES == 2**33


def test_a_pair_changed_after_listing_is_refused(tmp_path):
    arrays = {
        "condition": np.ones((4, 2, 3), np.float32),
        "target": np.arange(24, dtype=np.float32).reshape(4, 2, 3),
    }
    np.savez(tmp_path / "pairs.npz", **arrays)
    records = Sequences(tmp_path / "pairs.npz", split="all")
    np.savez(tmp_path / "pairs.npz", **{**arrays, "target": arrays["target"] + 1})
    with pytest.raises(DataError, match="changed after it was listed"):
        records[0]


def test_any_damaged_npz_is_refused_by_name(tmp_path):
    file = written(
        tmp_path / "pairs.npz", condition=np.ones((4, 2, 3), np.float32), target=np.ones((4, 2, 3))
    )
    np.savez_compressed(
        file,
        **{k: np.random.default_rng(0).normal(size=(40, 2, 3)) for k in ("condition", "target")},
    )
    content, drawn, refusals = file.read_bytes(), random.Random(0), 0
    for _ in range(150):
        damaged = bytearray(content)
        damaged[drawn.randrange(len(damaged))] ^= 1 << drawn.randrange(8)
        file.write_bytes(damaged)
        try:
            list(Sequences(file, split="all"))
        except DataError as error:
            refusals += error.where == str(file) and bool(error.cure)
    assert refusals > 100


@pytest.mark.parametrize(
    ("local", "central", "value"), [(6, 8, 1), (8, 10, 99)], ids=["encrypted", "unknown method"]
)
def test_an_unreadable_zip_is_refused_by_name(tmp_path, local, central, value):
    file = written(tmp_path / "pairs.npz", **arrays())
    content = bytearray(file.read_bytes())
    for mark, offset in ((b"PK\x03\x04", local), (b"PK\x01\x02", central)):
        start = -1
        while (start := content.find(mark, start + 1)) >= 0:
            content[start + offset] = value
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"not a complete \.npz file"):
        Sequences(file)
