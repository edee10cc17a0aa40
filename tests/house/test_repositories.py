"""The repositories that a checkpoint may fetch are exactly those that conf/ offers."""

import re

import pytest
from omegaconf import OmegaConf

from tests.app.runs import CONF
from tinyflux_pl.config.dotted_keys import dotted
from tinyflux_pl.core import metric_names
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.inference import described_parts
from tinyflux_pl.inference.described_parts import REPOSITORIES
from tinyflux_pl.weights import hub

DEFAULT = re.compile(r"\$\{oc\.select:[^,]+,\s*([^}]+)\}")


def named():
    """Repository -> where conf/ names it: as a value, or as what a value falls back to."""
    repositories = {}
    for file in sorted(CONF.rglob("*.yaml")):
        for key, value in dotted(OmegaConf.to_container(OmegaConf.load(file), resolve=False)):
            name = DEFAULT.sub(r"\1", value).strip() if isinstance(value, str) else ""
            if (
                hub.REPOSITORY.fullmatch(name)
                and key.rpartition(".")[0].split(".")[0] != "defaults"
                and not any(entry.matches(name) for entry in metric_names.SCALARS)
            ):
                repositories.setdefault(name, f"{file.relative_to(CONF)}: {key}")
    return repositories


def test_checkpoints_may_fetch_every_repository_of_conf():
    assert not {name: where for name, where in named().items() if name not in REPOSITORIES}


def test_conf_names_every_allowed_repository():
    assert named().keys() >= REPOSITORIES


def test_a_repository_outside_conf_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(described_parts, "_fetched", lambda repository: False)
    for name in named():
        described_parts._require_known({"weights": name}, "codec", "here")
    with pytest.raises(ConfigError, match="would fetch somebody/else"):
        described_parts._require_known({"weights": "somebody/else"}, "codec", "here")
