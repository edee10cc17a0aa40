"""Paths of pictures reach the configuration as they were typed, one or several."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from tinyflux_pl.config.quoting import quoted


def read(line):
    """The value, prepared twice: a child process prepares the prepared line again."""
    value = OverridesParser.create().parse_override(quoted(quoted(line))).value()
    return [plain(item) for item in value] if isinstance(value, list) else plain(value)


def plain(value):
    return getattr(value, "text", value)


@pytest.mark.parametrize("key", ["reference", "image", "mask"])
@pytest.mark.parametrize("path", ["photo.png", "my photo, blue.png", "it's [one].png", "C=D.png"])
def test_one_image_path_is_read_as_typed(key, path):
    assert read(f"{key}={path}") == path


@pytest.mark.parametrize(
    ("typed", "paths"),
    [
        ("[a b.png, it's c.png]", ["a b.png", "it's c.png"]),
        ("['x, y.png','z.png']", ["x, y.png", "z.png"]),
        ('["x, y.png", z.png]', ["x, y.png", "z.png"]),
        ("[one.png]", ["one.png"]),
        ("null", None),
    ],
)
def test_several_image_paths_are_read_as_typed(typed, paths):
    assert read(f"reference={typed}") == paths
