"""Fault 13: two extractors in one directory, or two trainings of one run: one waits or is refused,
the other's work is whole.
"""

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
    """One without a cache, one whose cache is stale (a caption was changed since), and the caches
    to come.
    """
    fresh = caching.make(tmp_path_factory.mktemp("world") / "fresh", pictures=12, pretrained=False)
    stale, whole = (caching.copied(fresh, fresh.with_name(name)) for name in ("stale", "whole"))
    caching.extract(stale, pretrained=False)
    (stale / "data" / "003.txt").write_text("a black square")
    shutil.copy(stale / "data" / "003.txt", whole / "data")
    caching.extract(whole, pretrained=False)
    expected = caching.content(stale), caching.content(whole)
    return fresh, stale, expected


@pytest.mark.parametrize("rebuild", [False, True])
def test_the_second_extractor_waits_and_nothing_is_corrupt(worlds, tmp_path, rebuild, figure):
    fresh, stale, expected = worlds
    tried, held = times(2, 10), 0
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
        others = [pid for pid in ended if pid not in waited]
        faults = [found for split in ("train", "validation") for found in examined(root, split)]
        whole = not faults and caching.content(root) == expected[rebuild]
        held += whole and owners == others and all(end.code == 0 for end in ended.values())
    figure(
        13,
        f"two {'rebuilds' if rebuild else 'extractors'}, one directory: one waits, none corrupt",
        held,
        tried,
    )


def test_two_processes_cannot_train_one_run(tmp_path, figure):
    """The second is refused before it reads, writes or removes anything; the first ends as if it
    had been alone.
    """
    small_runs.warm()
    alone = small_runs.outcome(small_runs.finished(tmp_path, "alone"))
    tried, held = times(1, 5), 0
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
        held += refused and untouched and same
        if not (refused and untouched and same):
            print(refused, untouched, same, second.printed[-1500:], ended.printed[-1500:])
    figure(13, "two processes, one run: one refused, the other as if alone", held, tried)


def test_two_processes_that_start_one_new_run_leave_one_run(tmp_path, figure):
    """Neither says resume: one trains as if alone, the other is refused, whichever of them looked
    first.
    """
    small_runs.warm()
    alone = small_runs.outcome(small_runs.finished(tmp_path, "alone"))
    tried, held = times(1, 5), 0
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
        said = ("is being trained by process", "already has checkpoints")
        found = small_runs.outcome(tmp_path / "outputs" / name)
        same = {**found, "draws": alone["draws"]} == alone
        held += len(refused) == 1 and any(words in refused[0].printed for words in said) and same
    figure(13, "two processes start one new run: one refused, the other as if alone", held, tried)


def examined(root, split):
    return [found for found in verify.examine(root / "cache" / "folder" / split) if found[1]]
