"""Names that W&B would refuse in the middle of a start, or cut, are refused before."""

import pytest

from tests.app.runs import settings
from tinyflux_pl.config import wandb_names
from tinyflux_pl.core.errors import ConfigError


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("project", "team/project", r"may not have /[\s\S]*logger\.wandb\.entity=TEAM"),
        ("project", "a:b?", r"may not have \? :"),
        ("project", "p" * 129, "project has 129 characters"),
        ("name", "", "name has 0 characters"),
        ("name", "n" * 129, "name has 129 characters"),
        ("group", "g" * 129, "group has 129 characters"),
        ("tags", ["a", ""], "a tag is ''"),
        ("tags", ["t" * 65], "of 65 characters"),
        ("tags", [3], "a tag is '3'"),
    ],
)
def test_names_that_wandb_cannot_hold_are_refused(key, value, says):
    with pytest.raises(ConfigError, match=says) as caught:
        wandb_names.check({"wandb": {key: value}})
    assert caught.value.where == f"logger.wandb.{key}"


def test_other_names_and_other_loggers_pass():
    fine = {"project": "p", "name": "é ñ:*?", "group": None, "tags": ["t" * 64], "entity": "a"}
    for nodes in ({"wandb": fine}, {"wandb": {"tags": None}}, {"csv": {"name": ""}}, {}):
        wandb_names.check(nodes)


def test_a_project_with_a_slash_is_refused_by_the_schema(tmp_path):
    with pytest.raises(ConfigError, match="may not have /"):
        settings("train", tmp_path, "logger=wandb", "logger.wandb.project=team/project")
