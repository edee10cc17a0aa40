"""`data.limit`, which debug=fast sets: few pictures are cached, apart from those of other runs."""

import pytest
from PIL import Image

from tests.app.runs import CONF, SMALLEST, run, settings
from tinyflux_pl.app.caches.doctor import _roots
from tinyflux_pl.app.components import Parts
from tinyflux_pl.app.generated import class_pictures, drawn_pictures
from tinyflux_pl.cache.store import CacheStore
from tinyflux_pl.config import schema
from tinyflux_pl.core.errors import StaleCache

TINY = (*SMALLEST, "steps=1", "sampler.steps=1", "data.evaluation_prompts=0")
QUIET = ("callbacks.preview.every_steps=0", "callbacks.validation.every_steps=0")


def stored(folder):
    """Name -> bytes of the files of a cache, but for locks."""
    files = (file for file in folder.rglob("*") if file.is_file() and file.suffix != ".lock")
    return {file: file.read_bytes() for file in files}


def test_a_limited_run_leaves_the_cache_of_all_pictures_as_it_is(tmp_path):
    run("extract", tmp_path, *SMALLEST)
    full = stored(tmp_path / "cache" / "shapes")
    run("train", tmp_path, *TINY, *QUIET, "data.limit=4", "run=few", "hardware.batch_size=2")
    few = tmp_path / "cache" / "shapes_of_4"
    assert [len(CacheStore.open(few / split)) for split in ("train", "validation")] == [4, 4]
    assert stored(tmp_path / "cache" / "shapes") == full
    with pytest.raises(StaleCache):  # also where a command names the other folder
        other = f"data.sources.shapes.cache='{tmp_path}/cache/shapes_of_4'"
        run("extract", tmp_path, *SMALLEST, other)


def composed(*overrides):
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    with initialize_config_dir(str(CONF), version_base=None):
        return OmegaConf.to_container(compose("train", list(overrides)))


def test_debug_fast_caches_the_pictures_of_its_steps_and_no_more():
    config = composed("debug=fast")
    steps = config["steps"] * config["hardware"]["batch_size"]
    assert steps <= config["data"]["limit"] <= 2 * steps
    assert composed()["data"]["limit"] is None


@pytest.mark.parametrize("data", sorted(file.stem for file in (CONF / "data").glob("*.yaml")))
def test_every_dataset_takes_a_limit_on_the_command_line(data):
    assert composed(f"data={data}", "data.limit=3")["data"]["limit"] == 3


def test_the_doctor_looks_at_the_cache_of_a_limited_run(tmp_path):
    from tests.app.runs import settings

    (tmp_path / "cache/shapes_of_4").mkdir(parents=True)
    config = settings("extract", tmp_path, "data.limit=4", "doctor=true")
    assert isinstance(config, schema.Extract)
    assert tmp_path / "cache/shapes_of_4" in _roots(config)


DRAWN = {
    "drawn": ("data=shapes_drawn", "experts=none", "data.count=4", "data.teacher_count=5"),
    "class": (
        "method=dreambooth",
        "data=dreambooth",
        "data.root=subject",
        "data.prompt='a photo of sks dog'",
        "data.class_prompt='a photo of a dog'",
        "data.class_count=5",
        "data.image_size=32",
    ),
}


@pytest.mark.parametrize("source", DRAWN)
def test_as_many_pictures_are_drawn_as_the_limit_leaves(tmp_path, monkeypatch, source):
    prompts_of_set = []

    def draw(drawer, parts, node, pictures):
        prompts_of_set.append(drawer.prompts(node))
        for index, prompt in enumerate(prompts_of_set[-1]):
            Image.new("RGB", (32, 32)).save(pictures.picture(index))
            pictures.write_caption(index, prompt)

    monkeypatch.setattr(drawn_pictures, "_draw", draw)
    base = {"kind": "checkpoint", "hash": "0"}  # of no run: nothing is drawn
    monkeypatch.setattr(class_pictures, "_base", lambda parts: base)

    def folder(*words):
        lines = (*SMALLEST, *DRAWN[source], *words)
        parts = drawn_pictures.with_picture_folders(
            Parts.from_config(settings("train", tmp_path, *lines))
        )
        node = parts.config.data.sources[source].train
        assert node["count"] == len(prompts_of_set[-1])
        return node["root"]

    few, every, again = folder("data.limit=2"), folder(), folder("data.limit=9")
    assert [len(prompts) for prompts in prompts_of_set] == [2, 5]
    assert few != every == again
