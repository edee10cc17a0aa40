"""Secrets stay in the environment: what is printed, logged or raised shows a mask instead."""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
import traceback
from collections.abc import Mapping
from types import TracebackType
from typing import Any
from urllib.parse import quote

MASK = "***"
SHORTEST = 8  # shorter values ("true", "1") would mask ordinary words
_NAME = re.compile(r"(?:^|_)(?:[A-Z0-9]*(?:TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL)S?|[A-Z0-9]*KEY)(?:_|$)")
_SHAPES = (
    re.compile(r"\bhf_[A-Za-z0-9]{16,}"),
    re.compile(r"\bwandb_v\d+_[A-Za-z0-9_\-]{16,}"),
    re.compile(r"\bgh[pousr]_[A-Za-z0-9]{20,}"),
    re.compile(r"\bgithub_pat_[A-Za-z0-9_]{20,}"),
    re.compile(r"\bsk-[A-Za-z0-9_\-]{20,}"),
    re.compile(r"\bAKIA[0-9A-Z]{16}\b"),
)
# 40 hex digits alone are also a revision, so a W&B key is known by the word before it
_LABELLED = re.compile(
    r"""(?ix) ((?:api[_-]?key | access[_-]?key | auth[_-]?token | \btoken | _token | secret | password | passwd
        | authorization | wandb[ _-]key)  ["']? \s* (?:=|:|\bis\b) \s* ["']? (?:bearer\s+)? ) ([^\s"',;}\])]{8,})"""
)
_LOGIN = re.compile(r"(?<=://)[^\s/:@]*:[^\s/@]+(?=@)")


def secrets() -> list[str]:
    """Values of environment variables whose names say token, key, secret or password; longest first."""
    found: set[str] = set()
    for name, value in os.environ.items():
        if len(value) >= SHORTEST and _NAME.search(name.upper()):
            found.update((value, quote(value, safe=""), value.strip()))
    return sorted((f for f in found if len(f) >= SHORTEST), key=len, reverse=True)


def redact(text: str) -> str:
    """The text with every known or recognisable secret masked."""
    for secret in secrets():
        text = text.replace(secret, MASK)
    for shape in _SHAPES:
        text = shape.sub(MASK, text)
    text = _LABELLED.sub(rf"\g<1>{MASK}", text)
    return _LOGIN.sub(MASK, text)


def redact_data(value: Any) -> Any:
    """Plain containers with strings redacted, and masked whole under a key that names a secret."""
    if isinstance(value, Mapping):
        return {k: MASK if v and _names_secret(k, v) else redact_data(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(redact_data(v) for v in value)
    return redact(value) if isinstance(value, str) else value


def _names_secret(key: Any, value: Any) -> bool:
    return isinstance(value, str) and isinstance(key, str) and bool(_NAME.search(key.upper()))


class SecretFilter(logging.Filter):
    """Masks a record's message and its traceback in place."""

    def filter(self, record: logging.LogRecord) -> bool:
        try:
            message = record.getMessage()
        except (TypeError, ValueError, KeyError):  # arguments that do not fit: logging reports that itself
            message = f"{record.msg} {record.args}"
        record.msg, record.args = redact(message), ()
        if record.exc_info and record.exc_info[0] is not None:
            record.exc_text = redact("".join(traceback.format_exception(*record.exc_info)).rstrip())
        return True


def install() -> None:
    """Redact all log records of this process and the tracebacks of uncaught errors; idempotent."""
    factory = logging.getLogRecordFactory()
    if not getattr(factory, "redacts", False):
        secret_filter = SecretFilter()

        def redacting(*args: Any, **kwargs: Any) -> logging.LogRecord:
            record = factory(*args, **kwargs)
            secret_filter.filter(record)
            return record

        vars(redacting)["redacts"] = True
        logging.setLogRecordFactory(redacting)
    sys.excepthook = _print_uncaught
    threading.excepthook = _print_thread


def _print_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    sys.stderr.write(redact("".join(traceback.format_exception(kind, error, trace))))


def _print_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_type is not SystemExit and args.exc_value is not None:
        _print_uncaught(args.exc_type, args.exc_value, args.exc_traceback)
