"""One piece of work at a time, and no failure lost."""

import subprocess
import sys
from threading import Event, Thread

import pytest

from tinyflux_pl.checkpoints.background_writer import BackgroundWriter
from tinyflux_pl.core.errors import DiskFull


def test_writing_runs_concurrently_with_the_caller():
    writer, go, order = BackgroundWriter(), Event(), []
    writer.start(lambda: (go.wait(10), order.append("work")))
    order.append("caller")
    go.set()
    writer.wait()
    assert order == ["caller", "work"]


def test_a_second_write_waits_for_the_first():
    writer, go, second = BackgroundWriter(), Event(), Event()
    writer.start(lambda: go.wait(10))
    caller = Thread(target=writer.start, args=(second.set,))
    caller.start()
    assert not second.wait(0.1)
    go.set()
    caller.join()
    writer.wait()
    assert second.is_set()


@pytest.mark.parametrize("call", ["wait", "start"])
def test_a_failure_is_raised_once_unchanged_by_the_next_call(call):
    writer, failure, ran = BackgroundWriter(), DiskFull("no space"), []

    def fail():
        raise failure

    writer.start(fail)
    with pytest.raises(DiskFull) as caught:
        writer.wait() if call == "wait" else writer.start(lambda: ran.append("too early"))
    assert caught.value is failure and not ran
    writer.wait()
    writer.start(lambda: ran.append("next"))
    writer.wait()
    assert ran == ["next"]


def test_a_pending_write_finishes_at_interpreter_exit(tmp_path):
    lines = (
        "import sys, time; from pathlib import Path",
        "from tinyflux_pl.checkpoints.background_writer import BackgroundWriter",
        "BackgroundWriter().start(lambda: (time.sleep(0.3), Path(sys.argv[1]).write_text('done')))",
        "raise RuntimeError('training failed')",
    )
    completed = subprocess.run(
        [sys.executable, "-c", "\n".join(lines), str(tmp_path / "file")], capture_output=True
    )
    assert completed.returncode == 1 and (tmp_path / "file").read_text() == "done"
