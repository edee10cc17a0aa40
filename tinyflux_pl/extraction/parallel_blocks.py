"""Process blocks in several threads on a CPU, where small networks gain little from op threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")


def run_parallel(
    workers: Sequence[Any], work: Callable[[Any, T], R], blocks: Iterable[T]
) -> Iterator[R]:
    """Yield work(worker, block) of every block in order; each worker runs in one thread at a time.

    Several workers divide the CPU's threads among them. Blocks are submitted as workers become
    free; exceptions are re-raised in block order.
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

    def divide_threads() -> None:
        torch.set_num_threads(max(1, threads // len(workers)))

    waiting: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(len(workers), initializer=divide_threads)
    try:
        for block in blocks:
            waiting.append(pool.submit(run, block))
            if len(waiting) > len(workers):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # new threads inherit the last value set
