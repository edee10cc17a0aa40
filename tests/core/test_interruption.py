"""Signals become a request that is met at a poll, and only while someone listens."""

import os
import signal
import threading

import pytest

from tinyflux_pl.core import interruption
from tinyflux_pl.core.errors import Interrupted
from tinyflux_pl.core.progress import track


def test_a_signal_raises_at_the_next_poll(capfd):
    with interruption.listening():
        interruption.poll()
        os.kill(os.getpid(), signal.SIGUSR1)
        assert interruption.requested_signal() == signal.SIGUSR1
        with pytest.raises(Interrupted, match="stopped by SIGUSR1") as error:
            interruption.poll()
    assert error.value.exit_code == 128 + signal.SIGUSR1
    assert "SIGUSR1: stopping" in capfd.readouterr().err


def test_handlers_are_restored_and_an_old_request_is_cleared():
    before = {number: signal.getsignal(number) for number in interruption.SIGNALS}
    with interruption.listening():
        assert all(
            signal.getsignal(number) is not before[number] for number in interruption.SIGNALS
        )
        os.kill(os.getpid(), signal.SIGTERM)
    assert {number: signal.getsignal(number) for number in interruption.SIGNALS} == before
    interruption.poll()


def test_a_handler_installed_by_a_library_is_replaced_again():
    with interruption.listening():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        interruption.reinstall_handlers()
        os.kill(os.getpid(), signal.SIGTERM)
        assert interruption.requested_signal()
    before = signal.getsignal(signal.SIGTERM)
    interruption.reinstall_handlers()
    assert signal.getsignal(signal.SIGTERM) is before, "nobody listens"


def test_nested_listeners_leave_the_handlers_to_the_outer_one():
    with interruption.listening():
        with interruption.listening():
            os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted):
            interruption.poll()


def test_a_thread_other_than_main_installs_no_handlers():
    before, seen = signal.getsignal(signal.SIGTERM), []

    def work():
        with interruption.listening():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


def test_a_long_loop_stops_between_two_items():
    done = []
    with interruption.listening(), pytest.raises(Interrupted):
        for item in track(range(9), "count", 9, "item"):
            done.append(item)
            if item == 3:
                interruption.request_stop(signal.SIGTERM)
    assert done == [0, 1, 2, 3]


def test_a_progress_bar_counts_weights_and_never_exceeds_its_total(capfd):
    assert list(track("abc", "letters", 5, "letter", 2)) == ["a", "b", "c"]
    assert "5/5" in capfd.readouterr().err
