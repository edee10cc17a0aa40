"""1: SIGKILL at any instant while a run saves without pause, in a thread and without one."""

import random
import signal
import time

from tests.faults.conftest import times
from tests.faults.saving import Saver, accepted, judged, killed_while_saving, staged


def test_a_save_killed_at_a_random_instant_leaves_a_valid_checkpoint(tmp_path, figure):
    tried = times(20, 300)
    chance, passed, lost = random.Random(1), 0, 0
    started = time.monotonic()
    for name in ("thread", "training"):
        saver = Saver(tmp_path / name, background=False)
        saver.save(1)
    one_save = time.monotonic() - started
    for i in range(tried):
        background = i % 2 == 0
        folder = tmp_path / ("thread" if background else "training")
        before = judged(folder).step
        ended = killed_while_saving(folder, background, tmp_path / "log", chance, one_save)
        assert ended.code == -signal.SIGKILL, ended.printed
        missing = max(before, accepted(ended.printed)) - judged(folder).step
        assert len(staged(folder)) <= 2, "what the killed left was not removed by the next"
        # In a thread, the one that is being written may be lost; otherwise none that was reported.
        passed += missing <= int(background)
        lost = max(lost, missing)
    saved = [judged(tmp_path / name).step for name in ("thread", "training")]
    assert min(saved) > tried / 4, f"the children hardly saved: {saved}"
    figure(
        1, "SIGKILL at random instants while saving", passed, tried, f"{lost} interval lost at most"
    )
