"""Blocks worked on side by side on a CPU, where a small network gains little from threads within an operation."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")


def side_by_side(workers: Sequence[Any], work: Callable[[Any, T], R], blocks: Iterable[T]) -> Iterator[R]:
    """work(worker, block) of every block, in their order; each worker is in one thread at a time.

    Several workers share the CPU's threads between them. A block is taken when there is a worker for it or will be
    soon; what a thread raises is raised at its block's turn.
    """
    if len(workers) == 1:
        yield from (work(workers[0], block) for block in blocks)
        return
    threads = torch.get_num_threads()
    free: SimpleQueue[Any] = SimpleQueue()
    for worker in workers:
        free.put(worker)

    def run(block: T) -> R:
        worker = free.get()
        try:
            return work(worker, block)
        finally:
            free.put(worker)

    def share() -> None:
        torch.set_num_threads(max(1, threads // len(workers)))

    waiting: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(len(workers), initializer=share)
    try:
        for block in blocks:
            waiting.append(pool.submit(run, block))
            if len(waiting) > len(workers):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # new threads take the number that was set last
