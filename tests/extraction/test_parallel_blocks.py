"""Blocks side by side: the same answers in the same order, really at once, never far ahead."""

import threading

import pytest
import torch

from tinyflux_pl.extraction.parallel_blocks import run_parallel


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_results_keep_block_order_and_a_worker_runs_one_block_at_a_time(workers):
    used = [threading.Lock() for _ in range(workers)]

    def work(worker, block):
        assert worker.acquire(blocking=False)
        threading.Event().wait(0.001 * (block % 3))
        worker.release()
        return block * block

    assert list(run_parallel(used, work, range(20))) == [block * block for block in range(20)]


def test_two_workers_run_concurrently_and_share_the_threads():
    both, threads = threading.Barrier(2, timeout=20), torch.get_num_threads()
    torch.set_num_threads(2)
    try:

        def work(worker, block):
            both.wait()  # passed only by two at once
            return torch.get_num_threads()

        assert list(run_parallel("ab", work, range(6))) == [1] * 6
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_blocks_are_consumed_lazily():
    taken, results = [], []
    for answer in run_parallel(
        "ab", lambda _, block: block, (taken.append(i) or i for i in range(50))
    ):
        results.append(answer)
        assert len(taken) <= len(results) + 3
    assert results == list(range(50))


def test_an_error_is_raised_in_block_order_and_stops_the_work():
    def work(worker, block):
        if block == 5:
            raise ValueError("block 5")
        return block

    results = []
    with pytest.raises(ValueError, match="block 5"):
        for answer in run_parallel("ab", work, range(1000)):
            results.append(answer)
    assert results == [0, 1, 2, 3, 4] and threading.active_count() < 10
