"""Fault 13: two extractors share a folder; of two rebuilds or trainings one waits or is refused."""

import re
import shutil
import time

import pytest

from tests.app.runs import configuration
from tests.faults import caching, forks, small_runs
from tests.faults.conftest import times
from tests.faults.forks import Child
from tests.faults.test_05_resume import LOSS, at_call
from tinyflux_pl.app import run as recipes
from tinyflux_pl.cache import verify

WAITED = re.compile(r"which process (\d+) on \S+ is filling")


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    """Projects without a cache and with a stale one, and the expected caches."""
    fresh = caching.make(tmp_path_factory.mktemp("world") / "fresh", pictures=12, pretrained=False)
    stale, intact = (caching.copied(fresh, fresh.with_name(name)) for name in ("stale", "whole"))
    caching.extract(stale, pretrained=False)
    (stale / "data" / "003.txt").write_text("a black square")
    shutil.copy(stale / "data" / "003.txt", intact / "data")
    caching.extract(intact, pretrained=False)
    expected = caching.content(stale), caching.content(intact)
    return fresh, stale, expected


@pytest.mark.parametrize("rebuild", [False, True])
def test_two_extractors_fill_one_cache_and_of_two_rebuilds_one_waits(
    worlds, tmp_path, rebuild, figure
):
    fresh, stale, expected = worlds
    tried, passed = times(2, 10), 0
    for i in range(tried):
        root = caching.copied(stale if rebuild else fresh, tmp_path / str(i))
        config = caching.config(root, f"rebuild={str(rebuild).lower()}", pretrained=False)
        work = lambda config=config: recipes.extract(config)  # noqa: E731
        with (
            Child(work, tmp_path / f"{i}.first") as first,
            Child(work, tmp_path / f"{i}.second") as second,
        ):
            ended = {first.pid: first.wait(), second.pid: second.wait()}
        waited = [pid for pid, end in ended.items() if WAITED.search(end.printed)]
        owners = [int(WAITED.search(ended[pid].printed)[1]) for pid in waited]
        owners_expected = [pid for pid in ended if pid not in waited]
        faults = [fault for split in ("train", "validation") for fault in examined(root, split)]
        intact = not faults and caching.content(root) == expected[rebuild]
        finished = all(end.code == 0 for end in ended.values())
        passed += intact and finished and (not rebuild or owners == owners_expected)
    figure(
        13,
        "two rebuilds, one directory: one waits, none corrupt"
        if rebuild
        else "two extractors, one directory: they share it, none corrupt",
        passed,
        tried,
    )


def test_two_processes_cannot_train_one_run(tmp_path, figure):
    """The second is refused before it reads or writes; the first ends as if alone."""
    small_runs.warm()
    alone = small_runs.outcome(small_runs.finished(tmp_path, "alone"))
    tried, passed = times(1, 5), 0
    for i in range(tried):
        name = f"run_{i}"
        folder, there, go = (
            tmp_path / part for part in (f"outputs/{name}", f"{name}.there", f"{name}.go")
        )

        def pause(there=there, go=go):
            there.touch()
            while not go.exists():
                time.sleep(0.01)

        trap = at_call(*LOSS, 30, pause)  # in the fifteenth step, after one checkpoint
        with Child(
            small_runs.training(tmp_path, name, before=trap), tmp_path / f"{name}.first"
        ) as first:
            while (
                not (there.exists() and (folder / "checkpoints" / "step_0000010").exists())
                and first.alive()
            ):
                time.sleep(0.01)
            before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
            work = lambda name=name: recipes.train(  # noqa: E731
                configuration("train", tmp_path, *small_runs.SMALL, f"run={name}", "resume=auto")
            )
            second = forks.run(work, tmp_path / f"{name}.second")
            untouched = before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
            go.touch()
            ended = first.wait(small_runs.PATIENCE)
        refused = second.code == 1 and f"is being trained by process {first.pid}" in second.printed
        same = ended.code == 0 and not small_runs.differences(alone, small_runs.outcome(folder))
        passed += refused and untouched and same
        if not (refused and untouched and same):
            print(refused, untouched, same, second.printed[-1500:], ended.printed[-1500:])
    figure(13, "two processes, one run: one refused, the other as if alone", passed, tried)


def test_two_processes_that_start_one_new_run_leave_one_run(tmp_path, figure):
    """Neither resumes: one trains as if alone, the other is refused."""
    small_runs.warm()
    alone = small_runs.outcome(small_runs.finished(tmp_path, "alone"))
    tried, passed = times(1, 5), 0
    for i in range(tried):
        name = f"start_{i}"
        work = small_runs.training(tmp_path, name)
        with (
            Child(work, tmp_path / f"{name}.a") as one,
            Child(work, tmp_path / f"{name}.b") as other,
        ):
            ended = [one.wait(small_runs.PATIENCE), other.wait(small_runs.PATIENCE)]
        # both wrote to it before either was refused
        (tmp_path / "outputs" / name / "draws_000_0.jsonl").unlink()
        refused = [end for end in ended if end.code]
        messages = ("is being trained by process", "already has checkpoints")
        result = small_runs.outcome(tmp_path / "outputs" / name)
        same = {**result, "draws": alone["draws"]} == alone
        passed += (
            len(refused) == 1 and any(words in refused[0].printed for words in messages) and same
        )
    figure(13, "two processes start one new run: one refused, the other as if alone", passed, tried)


def examined(root, split):
    return [fault for fault in verify.examine(root / "cache" / "folder" / split) if fault[1]]
