"""Secrets are masked in what a process writes: streams, logs, tracebacks and the copied console."""

import io
import logging
import os
import subprocess
import sys
import threading

import pytest

from tinyflux_pl.config import redact


def test_every_write_to_a_stream_is_masked_and_the_stream_interface_stays(monkeypatch):
    monkeypatch.setenv("X_TOKEN", "sentinel-secret")
    under = io.StringIO()
    stream = redact.Masked(under)
    print("a sentinel-secret", 3, file=stream)
    stream.writelines(["b sentinel-secret\n", "\x1b[1mbold\r"])
    assert under.getvalue() == "a *** 3\nb ***\n\x1b[1mbold\r"
    assert (
        stream.write("sentinel-secret") == 15
        and stream.getvalue() is not None
        and not stream.isatty()
    )


@pytest.fixture
def installed():
    kept = (
        logging.getLogRecordFactory(),
        sys.excepthook,
        threading.excepthook,
        sys.stdout,
        sys.stderr,
    )
    redact.install()
    redact.install()
    assert isinstance(sys.stdout, redact.Masked) and sys.stdout.stream is kept[3]
    yield
    logging.setLogRecordFactory(kept[0])
    sys.excepthook, threading.excepthook, sys.stdout, sys.stderr = kept[1:]


def test_log_records_of_any_logger_are_masked(monkeypatch, installed, caplog):
    monkeypatch.setenv("X_TOKEN", "sentinel-secret")
    log = logging.getLogger("some.library")
    log.error("sent %s to %d", "sentinel-secret", 3)
    log.error("a caption: \x1b[2J\u202e")
    try:
        raise ValueError("holds sentinel-secret")
    except ValueError:
        log.exception("failed")
    assert "sent *** to 3" in caplog.text and "ValueError: holds ***" in caplog.text
    assert "sentinel-secret" not in caplog.text and r"a caption: \x1b[2J\u202e" in caplog.text


CRASH = """
import sys, threading, logging
from tinyflux_pl.config import redact
redact.install()
def crash(): raise RuntimeError("with sentinel-secret")
thread = threading.Thread(target=crash); thread.start(); thread.join()
logging.error("two %s, one given: %s", "sentinel-secret")
crash()
"""


def test_uncaught_errors_of_program_and_threads_are_masked(tmp_path):
    file = tmp_path / "crash.py"
    file.write_text(CRASH)
    secret = {"X_TOKEN": "sentinel-secret"}
    process = subprocess.run(
        [sys.executable, str(file)], capture_output=True, text=True, env={**os.environ, **secret}
    )
    assert process.returncode == 1 and process.stderr.count("RuntimeError: with ***") == 2
    assert "sentinel-secret" not in process.stdout + process.stderr


@pytest.mark.parametrize(("configured", "expected"), [(None, "off"), ("wrap", "wrap")])
def test_the_console_is_captured_only_after_masking_unless_configured(configured, expected):
    program = (
        "import os; from tinyflux_pl.config import redact; redact.install(); "
        "print(os.environ['WANDB_CONSOLE'])"
    )
    environment = {key: value for key, value in os.environ.items() if key != "WANDB_CONSOLE"}
    environment |= {} if configured is None else {"WANDB_CONSOLE": configured}
    process = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment
    )
    assert process.stdout == f"{expected}\n", process.stderr


LOUD = """
import sys, threading
from tinyflux_pl.config import redact
redact.install()
print("out sentinel-secret")
print("err sentinel-secret", file=sys.stderr)
sys.stderr.writelines(["lines sentinel-secret"])
def crash(): raise RuntimeError("a caption: \\x1b[2J")
thread = threading.Thread(target=crash); thread.start(); thread.join()
crash()
"""


def test_both_streams_are_masked_and_uncaught_errors_are_escaped():
    environment = {
        **os.environ,
        "X_TOKEN": "sentinel-secret",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    process = subprocess.run(
        [sys.executable, "-c", LOUD], capture_output=True, text=True, env=environment
    )
    assert (
        "out ***" in process.stdout
        and "err ***" in process.stderr
        and "lines ***" in process.stderr
    )
    assert "sentinel-secret" not in process.stdout + process.stderr
    assert (
        process.stderr.count(r"RuntimeError: a caption: \x1b[2J") == 2
        and "\x1b" not in process.stderr
    )
