"""The forked children of these tests themselves: one that is killed stops no other."""

import time

from tqdm import tqdm

from tests.faults.forks import Child, run


def test_a_child_killed_while_it_draws_a_bar_does_not_stop_the_next(tmp_path):
    tqdm.get_lock()

    def hold():
        with tqdm.get_lock():
            print("held", flush=True)
            time.sleep(60)

    with Child(hold, tmp_path / "first.log") as first:
        while first.alive() and "held" not in first.log.read_text():
            time.sleep(0.001)
        first.kill()
    ended = run(lambda: tqdm(range(2)).close(), tmp_path / "second.log", timeout=20)
    assert ended.code == 0, ended.printed
