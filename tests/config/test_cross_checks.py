"""Two sources never share a cache, and no run writes into the data that it reads."""

import pytest

from tinyflux_pl.config import cross_checks
from tinyflux_pl.core.errors import ConfigError

PATHS = {"cache": "/disk/cache", "outputs": "/disk/outputs"}


def sources(first="/disk/cache/a", second="/disk/cache/b", root=None):
    train = {} if root is None else {"root": root}
    return {"one": {"cache": first, "train": train}, "two": {"cache": second, "train": {}}}


def test_sibling_folders_are_accepted():
    cross_checks.check(sources(root="/disk/photos"), PATHS)
    cross_checks.check(sources("/disk/cache/a", "/disk/cache/ab"), PATHS)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("/disk/cache/a", "/disk/cache/a"),
        ("/disk/cache", "/disk/cache/b"),
        ("/disk/cache/b/c", "/disk/cache/b"),
    ],
)
def test_nested_caches_are_refused_in_either_order(first, second):
    with pytest.raises(ConfigError, match="are nested") as caught:
        cross_checks.check(sources(first, second), PATHS)
    assert caught.value.where == "data.sources.two.cache"


def test_links_are_followed_when_comparing_folders(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(ConfigError, match="are nested"):
        cross_checks.check(sources(str(tmp_path / "a"), str(tmp_path / "b")), PATHS)


@pytest.mark.parametrize("root", ["/disk", "/disk/cache", "/disk/outputs", "/disk/cache/a"])
def test_outputs_inside_a_dataset_are_refused(root):
    with pytest.raises(ConfigError, match="holds what runs write") as caught:
        cross_checks.check(sources(root=root), PATHS)
    assert caught.value.where == "data.sources.one.train.root"
