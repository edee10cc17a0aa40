"""A small configuration folder, so that these tests hold whatever conf/ offers."""

from pathlib import Path

import pytest

FILES = {
    "train.yaml": """
defaults:
  - model: tiny
  - experts: none
  - hydra: quiet
  - _self_
  - experiment: null
prompt: null
negative_prompt: null
steps: 10
data: {root: photos, sizes: [32, 64]}
checkpoint: null
""",
    "generate.yaml": "defaults: [hydra: quiet, _self_]\ncheckpoint: ???\nprompt: null\n",
    "model/tiny.yaml": "_target_: tinyflux_pl.nets.tinyflux.TinyFluxDeep\ndepth: 2\noptimizer: "
    "{lr: 0.1}\n",
    "model/base.yaml": "_target_: tinyflux_pl.nets.tinyflux.TinyFluxDeep\ndepth: 8\noptimizer: "
    "{lr: 0.1}\n",
    "experts/none.yaml": "{}\n",
    "experts/lune.yaml": "lune: {width: 64}\n",
    "experts/lune_sol.yaml": "lune: {width: 64}\nsol: {width: 4}\n",
    "experiment/long.yaml": "# @package _global_\nsteps: 1000\n",
    "hydra/quiet.yaml": "# @package hydra\nrun: {dir: run}\nsweep: {dir: sweep}\njob: {chdir: "
    "false}\n",
}


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    """The folder; tests may add files to it."""
    for name, text in FILES.items():
        file = tmp_path / "conf" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path / "conf"
