"""An empty mapping on the command line is refused where Hydra would merge it into what is there."""

import pytest

from tinyflux_pl.app.cli.check_line import CONF, check_line
from tinyflux_pl.core.errors import ConfigError


def jobs(*words):
    return check_line(list(words), CONF, "train").jobs


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["data.sources={}"], "data.sources"),
        (["++data.sources={}"], "data.sources"),
        (["+data.sources={}"], "data.sources"),
        (["data={sources: {}}"], "data.sources"),
        (["data.sources.shapes={}"], "data.sources.shapes"),
        (["model={}"], "model"),
        (["hydra.job={}"], "hydra.job"),
        (["experts=lune", "++experts={}"], "experts"),
        (["-m", "seed=0,1", "callbacks={guard: {}}"], "callbacks.guard"),
        (["-m", "data.sources={},{}"], "data.sources"),
    ],
)
def test_an_empty_mapping_that_would_be_dropped_is_refused_by_its_key(words, key):
    with pytest.raises(ConfigError) as caught:
        jobs(*words)
    assert caught.value.where == key and "would change nothing" in caught.value.what


def test_an_empty_mapping_for_an_unset_key_is_accepted():
    assert jobs("experts={}")[0]["experts"] == {}


def test_a_mapping_with_entries_is_accepted():
    assert jobs("data.sources.shapes={weight: 2}")[0]["data"]["sources"]["shapes"]["weight"] == 2


def test_an_empty_list_is_accepted():
    """Lists are replaced, not merged."""
    assert jobs("+data.sources.shapes.experts=[]")[0]["data"]["sources"]["shapes"]["experts"] == []
