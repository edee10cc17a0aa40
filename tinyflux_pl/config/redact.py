"""Masking of secrets in printed text, log records and errors."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, TextIO, cast
from urllib.parse import quote, unquote

from tinyflux_pl.config.secret_patterns import LABELLED, LOGIN, SHAPES
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.printable import printable

MASK = "***"
SHORTEST = 8  # shorter values ("true", "1") would mask ordinary words
_NAME = re.compile(
    r"(?:^|_)(?:[A-Z0-9]*(?:TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL)S?|PASS|PAT|DSN|COOKIE|BEARER|JWT"
    r"|CONNECTION_STRING|WEBHOOK|[A-Z0-9]*KEY)(?:_|$)"
    r"|_PWD$"
)
# a key of a configuration is surer: pad_token and num_key_value_heads are a model's
_KEY = re.compile(
    r"(?i)(?:^|_)(?:(?:api|access|auth|private|secret|bearer|hf)_?(?:key|token)"
    r"|password|passwd|passphrase|secret|credential)s?$"
)


def secrets() -> list[str]:
    """Secrets of the environment, each also URL-quoted and JSON-escaped; longest first.

    These are the values of variables named like token, key, secret or password, and the passwords
    in addresses (https://user:password@host).
    """
    values: set[str] = set()
    for name, value in os.environ.items():
        candidates = [value, value.strip()] if _NAME.search(name.upper()) else _logins(value)
        for secret in candidates:
            values.update((secret, quote(secret, safe=""), json.dumps(secret)[1:-1]))
    return sorted((v for v in values if len(v) >= SHORTEST), key=len, reverse=True)


def _logins(value: str) -> list[str]:
    """Passwords in the addresses of a text, and users that are tokens."""
    return [unquote(part) for login in LOGIN.findall(value) for part in login if part]


def redact(text: str) -> str:
    """The text with every known or recognisable secret masked."""
    return LABELLED.sub(rf"\g<1>{MASK}", _without_certain(text, secrets()))


def redact_data(value: Any) -> Any:
    """Plain containers with strings redacted, and masked whole under a key that names a secret."""
    if isinstance(value, Mapping):
        return {
            redact_data(k): MASK if v and _names_secret(k, v) else redact_data(v)
            for k, v in value.items()
        }
    if isinstance(value, list | tuple):
        return type(value)(redact_data(v) for v in value)
    if type(value) is int:  # a password of digits, as the command line reads one
        return MASK if str(value) in secrets() else value
    return redact(value) if isinstance(value, str) else value


def _names_secret(key: Any, value: Any) -> bool:
    return isinstance(value, str) and isinstance(key, str) and bool(_NAME.search(key.upper()))


def check(config: Any) -> None:
    """Raise ConfigError if plain containers hold a secret: configurations are saved with results.

    Only certain ones: values of the environment's secrets, tokens of known shape, logins in
    addresses, and values of keys such as api_key or password.
    """
    certain = secrets()
    for key, value in _values(config):
        if isinstance(value, str):
            named = len(value) >= SHORTEST and _KEY.search(key.rpartition(".")[2])
            secret = named or _without_certain(value, certain) != value
        else:
            secret = str(value) in certain
        if secret:
            cure = (
                "keep it in the environment, as HF_TOKEN or WANDB_API_KEY; configurations are "
                "written to disk"
            )
            raise ConfigError("the configuration contains a secret", where=redact(key), cure=cure)


def _values(value: Any, where: str = "") -> Iterator[tuple[str, str | int]]:
    """(dotted key, value) of every text and integer in plain containers, keys included."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if isinstance(key, str):
                yield where, key
            yield from _values(inner, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _values(inner, f"{where}.{index}")
    elif isinstance(value, str) or type(value) is int:
        yield where, value


def _without_certain(text: str, certain: Sequence[str]) -> str:
    for secret in certain:
        text = text.replace(secret, MASK)
    for shape in SHAPES:
        text = shape.sub(MASK, text)
    return LOGIN.sub(MASK, text)


class SecretFilter(logging.Filter):
    """Masks a record's message and its traceback in place.

    What would act on a terminal becomes its escape.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        try:
            message = record.getMessage()
        # arguments that do not fit: logging reports that itself
        except (TypeError, ValueError, KeyError):
            message = f"{record.msg} {record.args}"
        record.msg, record.args = printable(redact(message)), ()
        if record.exc_info and record.exc_info[0] is not None:
            record.exc_text = printable(
                redact("".join(traceback.format_exception(*record.exc_info)).rstrip())
            )
        return True


class Masked:
    """A text stream that masks each write.

    All else is the stream's own.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        self.stream.write(redact(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def install() -> None:
    """Redact everything that this process logs, prints and raises; idempotent."""
    os.environ.setdefault("WANDB_CONSOLE", "off")  # W&B copies what is printed before it is masked
    if not isinstance(sys.stdout, Masked):
        sys.stdout = cast(TextIO, Masked(sys.stdout))
    if not isinstance(sys.stderr, Masked):
        sys.stderr = cast(TextIO, Masked(sys.stderr))
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


def _print_uncaught(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    sys.stderr.write(printable(redact("".join(traceback.format_exception(kind, error, trace)))))


def _print_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_type is not SystemExit and args.exc_value is not None:
        _print_uncaught(args.exc_type, args.exc_value, args.exc_traceback)
