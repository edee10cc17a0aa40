"""`train.py simulate=true` writes a family's release in small, and photographs, to start from."""

import pytest
import torch

from tests.app.runs import configuration, run, settings
from tinyflux_pl.app.components import Parts
from tinyflux_pl.app.released import small_release
from tinyflux_pl.config import schema
from tinyflux_pl.core.errors import ConfigError

SMALL = ("simulate=true", "data.image_size=64", "hardware.batch_size=2")


EXPERIMENTS = {"lora_flux1": "folder", "dreambooth_sdxl": "dreambooth", "controlnet_sd35": "folder"}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_s_release_is_written_once_and_read_strictly(name, tmp_path):
    pytest.importorskip("skimage")
    data = f"data={EXPERIMENTS[name]}"
    config = settings("train", tmp_path, f"experiment={name}", data, *SMALL)
    with_release = small_release.with_small_release(config)
    release = with_release.model["weights"]
    cache = tmp_path / "cache"
    written = (*cache.rglob("*.safetensors"), *cache.rglob("*.png"))
    files = {file: file.stat().st_mtime_ns for file in written}
    assert small_release.with_small_release(config).model == with_release.model
    assert all(file.stat().st_mtime_ns == time for file, time in files.items())
    root = next(iter(with_release.data.sources.values())).train["root"]
    assert len(list(cache.rglob("*.png"))) >= 4 and root
    parts = Parts.from_config(with_release)
    parts.check()
    network = parts.student()
    assert str(network.weight_files[0]).startswith(release)
    assert all(bool(p.isfinite().all()) for p in network.parameters())
    assert parts.text.encode(["a photo of a cat"]).tokens.isfinite().all()
    assert parts.codec.encode(torch.zeros(1, 3, 64, 64)).isfinite().all()


@pytest.mark.parametrize("name", ["flux2_klein_4b", "flux3"])
def test_a_small_language_model_is_read_at_the_layers_that_it_has(name, tmp_path):
    pytest.importorskip("skimage")
    words = (f"model={name}", "method=lora", "data=folder", f"data.root='{tmp_path / 'photos'}'")
    config = settings("train", tmp_path, *words, *SMALL)
    text = Parts.from_config(small_release.with_small_release(config)).text
    assert text.encode(["a photo of a cat"]).tokens.isfinite().all()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("simulate=true",), "only a published family"),
        (("simulate=true", "model=sdxl", "model.weights=somewhere"), "writes the weights"),
        (("simulate=true", "model=sdxl", "preflight=plan"), "too small to plan"),
    ],
)
def test_models_without_a_release_are_refused(words, reason, tmp_path):
    with pytest.raises(ConfigError, match=reason):
        run("train", tmp_path, *words, "run=none")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_of_pictures_is_refused(tmp_path):
    words = ("experiment=lora_flux1", "data=folder", "model.weights=somewhere")
    config = configuration("train", tmp_path, *words)
    node = schema.read(config, "train").data.sources["folder"].train
    from tinyflux_pl.config.build import build

    with pytest.raises(ConfigError, match="no folder of pictures"):
        build(node, "data")
