"""A pool of two warm processes that train together: cells of the matrix come one after another."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from tests.app import kept_compositions
from tests.app.runs import run
from tests.faults.forks import Child
from tinyflux_pl.app.fitting.training_run import TrainingRun
from tinyflux_pl.core.errors import ConfigError

RANKS = 2
DEVICES = (f"hardware.devices={RANKS}", "hardware.strategy=ddp")
# AdamW divides by the gradient's size plus 1e-8: smaller ones may round to no change at all
LEAST_GRADIENT = 1e-12
PATIENCE = 600.0  # seconds that a cell may take: a busy machine is no fault


@dataclass(frozen=True)
class Trained:
    """Hashes of a network's tensors on one rank, by name, or the refusal of its run.

    `reached` are the parameters that had a gradient other than zero on this rank, `taught` those
    with one that AdamW cannot lose beside its epsilon.
    """

    before: dict[str, str]
    after: dict[str, str]
    reached: frozenset[str]
    taught: frozenset[str]
    refusal: str | None = None

    @property
    def moved(self) -> set[str]:
        """The tensors that training changed."""
        return {name for name, digest in self.after.items() if digest != self.before[name]}


class TwoRanks:
    """The processes, and a connection to each."""

    def __init__(self, children: list[Child], connections: list[Connection]) -> None:
        self.children, self.connections = children, connections

    def train(self, folder: Path, *words: str) -> list[Trained]:
        """Train one run on both ranks; AssertionError with a rank's output where it fails."""
        for connection in self.connections:
            connection.send((folder, (*words, *DEVICES)))
        return [self._answer(rank) for rank in range(RANKS)]

    def _answer(self, rank: int) -> Trained:
        connection, child = self.connections[rank], self.children[rank]
        try:
            if connection.poll(PATIENCE):
                answer = connection.recv()
                assert isinstance(answer, Trained)
                return answer
        except EOFError:  # the process has ended
            pass
        # The other rank waits for it and may not know why.
        logs = [each.log.read_text(errors="replace")[-2500:] for each in self.children]
        raise AssertionError(f"rank {rank} gave no answer ({child.alive()=}):\n" + "\n".join(logs))


@contextmanager
def two_ranks(folder: Path) -> Iterator[TwoRanks]:
    """The pool, its output in `folder`; both processes are gone when the block is left."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    with ExitStack() as stack:
        children, connections = [], []
        for rank in range(RANKS):
            actual, expected = Pipe()
            connections.append(actual)
            work = _Rank(rank, port, expected, tuple(connections))
            children.append(stack.enter_context(Child(work, folder / f"rank_{rank}.log")))
            expected.close()  # so that its end is noticed here
        yield TwoRanks(children, connections)


class _Rank:
    """Work of one process: trains each run that it is sent, and answers with its weights."""

    def __init__(
        self, rank: int, port: str, connection: Connection, of_tests: tuple[Connection, ...]
    ) -> None:
        self.rank, self.port, self.connection = rank, port, connection
        self.of_tests = of_tests  # the other ends, which a fork copies
        self.trained: Trained | None = None

    def __call__(self) -> None:
        for each in self.of_tests:
            each.close()  # so that the end of the tests is noticed here
        os.environ.update(
            RANK=str(self.rank),
            LOCAL_RANK=str(self.rank),
            GROUP_RANK="0",
            WORLD_SIZE=str(RANKS),
            LOCAL_WORLD_SIZE=str(RANKS),
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=self.port,
            TORCHELASTIC_RUN_ID="test",
        )
        fit = TrainingRun.fit

        def recorded(training: TrainingRun) -> None:
            network = training.trainable.denoiser
            largest: dict[str, float] = {}
            for name, parameter in network.named_parameters():
                if parameter.requires_grad:
                    parameter.register_post_accumulate_grad_hook(_noted(name, largest))
            before = digests(network)
            fit(training)
            reached, taught = (
                frozenset(name for name, value in largest.items() if value > least)
                for least in (0.0, LEAST_GRADIENT)
            )
            self.trained = Trained(before, digests(network), reached, taught)

        TrainingRun.fit = recorded
        with kept_compositions.kept({}):
            while True:
                try:
                    folder, words = self.connection.recv()
                except EOFError:  # the tests are over
                    return
                self.connection.send(self._trained(folder, words))

    def _trained(self, folder: Path, words: tuple[str, ...]) -> Trained:
        self.trained = None
        try:
            run("train", folder, *words)
        except ConfigError as error:
            return Trained({}, {}, frozenset(), frozenset(), refusal=str(error))
        assert self.trained is not None, "the run took no step"
        return self.trained


def _noted(name: str, largest: dict[str, float]) -> Callable[[torch.Tensor], None]:
    """A hook that keeps the largest entry of the gradients of all backward passes."""

    def note(parameter: torch.Tensor) -> None:
        if parameter.grad is not None:
            entry = float(parameter.grad.abs().max())
            largest[name] = max(entry, largest.get(name, 0.0))

    return note


def digests(network: Any) -> dict[str, str]:
    """A hash of each tensor of a network, to the bit."""
    return {
        name: hashlib.sha256(
            value.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        ).hexdigest()
        for name, value in network.state_dict().items()
    }
