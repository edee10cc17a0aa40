"""The documented denoiser (docs/extending.md), one file and one YAML, trains and samples."""

import os
import re
import sys

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from tests.app.runs import CONF, SHAPES, run
from tinyflux_pl import denoisers
from tinyflux_pl.app import run as recipes
from tinyflux_pl.checkpoints import directory
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.denoisers.registry import build_denoiser, denoiser_class, denoiser_names
from tinyflux_pl.diffusion.paths import LinearPath

PAGE = (CONF.parent / "docs" / "extending.md").read_text()
EXAMPLES = dict(re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", PAGE, re.DOTALL))
MODULE = "tinyflux_pl.denoisers.mixer"


@pytest.fixture(scope="module")
def package_with_mixer(tmp_path_factory):
    """The page's file, in a folder that belongs to the package of denoisers."""
    folder = tmp_path_factory.mktemp("denoisers")
    (folder / "mixer.py").write_text(EXAMPLES["tinyflux_pl/denoisers/mixer.py"])
    denoisers.__path__.append(str(folder))
    yield
    denoisers.__path__.remove(str(folder))
    sys.modules.pop(MODULE, None)
    del denoisers.mixer


@pytest.fixture(scope="module")
def trained(package_with_mixer, tmp_path_factory):
    """The root of a short run with the page's YAML in a folder of choices of its own."""
    root = tmp_path_factory.mktemp("mixer")
    conf = root / "conf"
    (conf / "model").mkdir(parents=True)
    for entry in CONF.iterdir():
        if entry.name != "model":
            os.symlink(entry, conf / entry.name)
    (conf / "model" / "mixer.yaml").write_text(EXAMPLES["conf/model/mixer.yaml"])
    overrides = [
        "debug=fast",
        *SHAPES,
        "model=mixer",
        "optimizer=adamw",
        "text.width=16",
        "run=added",
    ]
    overrides += ["hardware.precision=32-true", "hardware.gradient_checkpointing=true", "steps=2"]
    overrides += [f"paths.root='{root}'", "preflight=false", "data.evaluation_prompts=2"]
    with initialize_config_dir(str(conf), version_base=None):
        config = OmegaConf.to_container(compose("train", overrides), resolve=True)
    recipes.train({**config, "overrides": overrides})
    return root


def test_weights_of_an_added_denoiser_train(trained):
    checkpoint, _ = directory.newest_valid(trained / "outputs/added/checkpoints")
    assert checkpoint.config["denoiser"]["name"] == "mixer"
    assert checkpoint.weights("raw")["leave.weight"].isfinite().all()


def test_a_checkpoint_of_an_added_denoiser_samples(trained):
    checkpoint = trained / "outputs/added"
    run("generate", trained, f"checkpoint='{checkpoint}'", "prompt='a red circle'", "n=1", "seed=1")
    assert list((trained / "outputs").rglob("*.png"))


def test_an_added_denoiser_is_registered_by_its_name(package_with_mixer):
    assert "mixer" in denoiser_names() and denoiser_class("mixer").__name__ == "MixerDenoiser"


@pytest.mark.parametrize("name", ["registry", "denoiser", "packing", "../unet", "os", "sys.path"])
def test_a_denoiser_name_from_a_file_imports_only_denoisers(name):
    with pytest.raises(ConfigError, match="no denoiser"):
        build_denoiser(name, {}, LinearPath())
