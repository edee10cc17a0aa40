"""The examples of docs/extending.md are extracted from the page and run."""

import re
import sys
import types

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from tests.app.runs import CONF, SMALLEST
from tinyflux_pl.app import run as recipes
from tinyflux_pl.core.errors import StaleCache

PAGE = (CONF.parent / "docs" / "extending.md").read_text()
EXAMPLES = dict(re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", PAGE, re.DOTALL))


@pytest.fixture
def added(monkeypatch):
    """The page's modules, as if their files lay in the package."""
    for file in (
        "tinyflux_pl/data/stripes.py",
        "tinyflux_pl/objectives/calm.py",
        "tinyflux_pl/techniques/direction.py",
    ):
        name = file.removesuffix(".py").replace("/", ".")
        module = types.ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        exec(compile(EXAMPLES[file], file, "exec"), module.__dict__)


def trained(root, *overrides, **nodes):
    with initialize_config_dir(str(CONF), version_base=None):
        config = OmegaConf.to_container(
            compose(
                "train",
                [
                    "debug=fast",
                    "model=tiny",
                    "experts=lune_sol",
                    f"paths.root='{root}'",
                    *overrides,
                ],
            )
        )
    stripes = OmegaConf.create(EXAMPLES["conf/data/stripes.yaml"])
    config["data"] = OmegaConf.to_container(
        OmegaConf.create({"data": stripes, "paths": config["paths"]})
    )["data"]
    config |= nodes
    for split in ("train", "validation"):
        config["data"]["sources"]["stripes"][split]["count"] = 40
    recipes.train(
        {**OmegaConf.to_container(OmegaConf.create(config), resolve=True), "overrides": []}
    )


def test_the_documented_technique_adds_its_term(added, tmp_path):
    node = OmegaConf.to_container(OmegaConf.create(EXAMPLES["conf/technique/direction.yaml"]))
    line = (*SMALLEST, "run=first", "steps=2", "callbacks.log_every_steps=1")
    trained(tmp_path, *line, technique=node)
    header, first, *_ = (tmp_path / "outputs/first/csv/metrics.csv").read_text().splitlines()
    logged = dict(zip(header.split(","), first.split(","), strict=True))
    assert 0 < float(logged["train/direction"]) < 0.2


def test_the_documented_dataset_and_loss_train_with_the_experts(added, tmp_path):
    calm = "objective._target_=tinyflux_pl.objectives.calm.CalmFlow"
    trained(tmp_path, *SMALLEST, "run=first", "steps=4", "callbacks.log_every_steps=2", calm)
    logged = (tmp_path / "outputs/first/csv/metrics.csv").read_text().splitlines()[0]
    assert "train/drift" in logged and "train/lune" in logged
    stripes = sys.modules["tinyflux_pl.data.stripes"].Stripes
    stripes.fingerprint = lambda self: {"name": "stripes", "version": 2}
    with pytest.raises(StaleCache, match="version"):
        trained(tmp_path, *SMALLEST, "run=second", "steps=1")


def test_every_file_named_in_extending_md_exists():
    named = set(re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.(?:py|yaml))`", PAGE))
    missing = [
        name
        for name in named
        if not any((CONF.parent / base / name).is_file() for base in ("", "tinyflux_pl"))
    ]
    assert len(named) >= 6 and not missing
