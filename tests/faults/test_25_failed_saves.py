"""Fault 25: saves fail one after another in every way; a valid checkpoint remains after each."""

import errno
import random

from tests.faults import forks
from tests.faults.conftest import times
from tests.faults.failpoints import before_changes, die_at, fail_at
from tests.faults.saving import Saver
from tinyflux_pl.checkpoints import directory
from tinyflux_pl.checkpoints.manifest import MANIFEST, WEIGHTS
from tinyflux_pl.core.errors import DiskFull

SIDE, CHANGES = 64, 24  # fewer than a save makes, so that each one chosen does fail it


def test_a_run_survives_fifty_failed_saves(tmp_path, figure):
    folder, chance = tmp_path / "checkpoints", random.Random(25)
    Saver(folder, background=False, side=SIDE).save(1)
    tried, passed, step = times(25, 50), 0, 1
    failed = {"killed": 0, "refused": 0, "rotten": 0}
    for i in range(tried):
        step += 1
        how, at, background = chance.choice(list(failed)), chance.randrange(CHANGES), bool(i % 2)

        def work(step=step, how=how, at=at, background=background):
            if how == "killed":
                before_changes(folder, die_at(lambda n, *_: n == at))
            elif how == "refused":
                error = (errno.ENOSPC, errno.EIO, errno.EROFS)[at % 3]
                before_changes(folder, fail_at(lambda n, *_: n >= at, error))
            saver = Saver(folder, background, side=SIDE)
            try:
                saver.save(step)
                saver.finish()
            except (DiskFull, OSError):
                print("refused")

        ended = forks.run(work, tmp_path / "log")
        failed["killed"] += ended.code == -9
        failed["refused"] += "refused" in ended.printed
        assert ended.code in (0, -9), ended.printed
        if how == "rotten":  # written without an error, and wrong all the same
            newest = folder / f"step_{step:07d}"
            file = newest / (WEIGHTS, MANIFEST)[at % 2]
            file.write_bytes(file.read_bytes()[:-1])
            failed["rotten"] += 1
        checkpoint, _ = directory.newest_valid(folder)
        passed += checkpoint is not None and bool(
            (checkpoint.weights("raw")["weight"] == checkpoint.step).all()
        )
    assert sum(failed.values()) == tried and min(failed.values()) >= tried // 10, failed
    Saver(folder, background=False, side=SIDE).save(step + 1)
    figure(
        25,
        "failed saves in a row, keep=2",
        passed,
        tried,
        ", ".join(f"{n} {how}" for how, n in failed.items()),
    )
