"""Fault 15: hostile images never crash, are named, valid ones are kept, memory is bounded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults import hostile_images
from tests.faults.conftest import FULL
from tests.faults.hostile_images import HEADER_IS_VALID, KEPT, LARGEST, RED, REFUSED, SIDE, SPECIAL
from tinyflux_pl.core.printable import printable

MOST = 500 * 2**20  # bytes of memory, the interpreter and its libraries among them
# Its own process, which imports what reading a folder needs and no more.
READER = """
import json, re, resource, sys
from pathlib import Path
# getrusage counts what the process was before it became this one: Linux can say it exactly
def peak():
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.search(r"VmHWM:\\s+(\\d+)", status.read_text())[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
from tinyflux_pl.core.errors import ImageError
from tinyflux_pl.data.records.folder import Folder
start = peak()
try:
    Folder(sys.argv[1], size=8, split="all")
    raised = ""
except ImageError as error:
    raised = str(error)
records = Folder(sys.argv[1], size=8, split="all", skip_bad=True)
found = {
    r.source: [*r.image.reshape(-1, 3).mean(0), *r.attributes["original_size"]] for r in records
}
out = {"raised": raised, "skipped": records.skipped, "found": found, "start": start}
json.dump({**out, "peak": peak()}, sys.stdout)
"""


def read(folder: Path) -> dict:
    completed = subprocess.run(
        [sys.executable, "-c", READER, str(folder)], capture_output=True, text=True
    )
    assert completed.returncode == 0, completed.stderr
    assert not completed.stderr, "a hostile picture makes the reader say something"
    return json.loads(completed.stdout)


def is_valid(name: str, decoded: dict, size: list[int]) -> bool:
    """True if an unusual image was decoded correctly: red, and of its own size."""
    values = decoded.get(name)
    return (
        bool(values)
        and values[3:] == size
        and all(abs(a - b) < 20 for a, b in zip(values[:3], RED, strict=True))
    )


def test_forty_hostile_images_are_refused(tmp_path, figure):
    hostile_images.write(tmp_path / "set")
    seen = read(tmp_path / "set")
    named = {line.split(":")[0] for line in seen["skipped"]}
    refused = [
        name
        for name in (*REFUSED, *SPECIAL)
        if printable(name) in named and name not in seen["found"]
    ]
    kept = [name for name in KEPT if is_valid(name, seen["found"], [SIDE, SIDE])]
    by_header = len(REFUSED) + len(SPECIAL) - len(HEADER_IS_VALID)
    assert f"{by_header} files" in seen["raised"] and "skip_bad=true" in seen["raised"]
    assert {f"good_{i}.png" for i in range(3)} <= set(seen["found"])
    assert seen["peak"] < MOST
    note = (
        f"peak {seen['peak'] / 2**20:.0f} MiB of memory, {seen['start'] / 2**20:.0f} MiB of it "
        "before the first file"
    )
    figure(15, "40 hostile images", len(refused) + len(kept), 40, note)


@pytest.mark.parametrize("name", LARGEST if FULL else ["turned.png"])
def test_the_largest_that_are_decoded_stay_within_the_bound(tmp_path, figure, name):
    (tmp_path / name).write_bytes(LARGEST[name]())
    (tmp_path / name).with_suffix(".txt").write_text("a red square")
    seen = read(tmp_path)
    assert list(seen["found"]) == [name] and seen["raised"] == ""
    note = f"peak {seen['peak'] / 2**20:.0f} MiB of memory"
    figure(15, f"{name} at the limit of pixels", int(seen["peak"] < MOST), 1, note)
