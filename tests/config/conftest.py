"""The small configuration folder of tests/app."""

from tests.app.conftest import conf

__all__ = ["conf"]
