"""Values that could only fail later are refused at once: what, where, and valid values."""

import copy

import pytest

from tests.app.runs import SMALLEST, configuration, run
from tests.house.test_conf_binds import composed
from tinyflux_pl.config import schema
from tinyflux_pl.core.errors import ConfigError


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return configuration("train", tmp_path_factory.mktemp("project"), "logger=wandb")


def check(config):
    schema.read(config, "train")


def changed(config, key, value):
    """The configuration with one value in place of another; a key that is not there is added."""
    config = copy.deepcopy(config)
    *above, last = key.split(".")
    node = config
    for name in above:
        node = node[name]
    node[last] = value
    return config


def refused(config):
    with pytest.raises(ConfigError) as caught:
        check(config)
    assert caught.value.what and caught.value.cure
    return caught.value


def test_a_release_sampler_without_a_release_is_refused_with_the_choices(sound):
    refusal = refused({**sound, "sampler": composed("train", ["sampler=flux3"])["sampler"]})
    assert refusal.where.startswith("sampler.") and "sampler=euler" in refusal.cure


def test_a_release_path_is_accepted_only_with_a_release(sound):
    check(composed("train", ["model=sdxl"]))
    assert refused({**sound, "path": {}}).where == "path"


BAD = {
    "steps": (0, -5, 2.5, "abc", None, True),
    "seed": ("abc", 1.5, None),
    "run": (None, "", 2.5),
    "resume": (1, True),
    "resume_changed": ("maybe", None),
    "replay": (7,),
    "preflight": ("maybe", None, 1, 0),
    "export_teacher": ("sola",),
    "paths.root": (None, 3),
    "paths.cache": ("",),
    "data.shard_size": (0, -3, "abc", 1.5, None),
    "data.store_dtype": ("float31", "load", "int8", None),
    "data.in_memory": ("maybe", 1),
    "data.evaluation_prompts": (-1, "abc"),
    "data.extraction_batch": (0, "8"),
    "data.sources": ({}, None, []),
    "data.sources.shapes": (None, "x"),
    "data.sources.shapes.weight": (0, -1, "abc", float("nan"), float("inf"), True),
    "data.sources.shapes.cache": (None, "", 3),
    "data.sources.shapes.train": (None, {}),
    "data.sources.shapes.validation": ("x",),
    "hardware.accelerator": ("tpu", None),
    "hardware.devices": (0, -2, "abc", [], ["a"], None),
    "hardware.strategy": ("dpp", None),
    "hardware.precision": ("bf17", 32, None),
    "hardware.batch_size": (0, "abc", 8.0),
    "hardware.accumulation": (0, "abc", None),
    "hardware.workers": (-1, "two"),
    "hardware.threads": (0, -1, "abc"),
    "hardware.compile": ("maybe", 1),
    "hardware.gradient_checkpointing": ("maybe",),
    "callbacks.ema": (None, 3),
    "callbacks.ema.decay": (2, 1.0, -0.1, "abc"),
    "callbacks.checkpoint.every_steps": (-1, "abc", None),
    "callbacks.checkpoint.keep": (0, "abc"),
    "callbacks.checkpoint.background": ("maybe",),
    "callbacks.preview.every_steps": (-1,),
    "callbacks.preview.count": (0, "abc"),
    "callbacks.validation.every_steps": ("abc",),
    "callbacks.validation.times": ([], [2.0], ["a"], 0.5, None),
    "callbacks.guard": (None,),
    "callbacks.guard.warmup": ("abc", -1),
    "callbacks.guard.loss_factor": ("abc",),
    "callbacks.guard.max_recent": (-1,),
    "callbacks.log_every_steps": (-1, "abc"),
    "teacher.seed": ("abc", None),
}


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, values in BAD.items() for value in values]
)
def test_an_invalid_value_is_refused_by_its_key(sound, key, value):
    assert refused(changed(sound, key, value)).where.startswith(key)


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("hardware.batch_sise", "hardware.batch_size"),
        ("callbacks.checkpiont", "callbacks.checkpoint"),
        ("callbacks.guard.warm_up", "callbacks.guard.warmup"),
        ("data.sources.shapes.wieght", "data.sources.shapes.weight"),
    ],
)
def test_an_unread_key_is_refused_with_the_nearest_known_key(sound, key, near):
    """With + before it, Hydra takes any."""
    error = refused(changed(sound, key, 1))
    assert error.where == key and f"did you mean {near}?" in error.cure


GOOD = {
    "seed": (0, 2**40),
    "run": ("red", 7),
    "hardware.devices": (2, "auto"),
    "hardware.threads": (None, 4),
    "callbacks.guard.loss_factor": (None, 30),
    "callbacks.checkpoint.every_steps": (0,),
    "callbacks.preview.prompts": (None, ["a red circle"]),
    "callbacks.log_every_steps": (0,),
    "preflight": (True, False, "only"),
    "resume": (None, "auto"),
    "data.sources.shapes.weight": (1, 0.2),
}


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, values in GOOD.items() for value in values]
)
def test_a_valid_value_is_accepted(sound, key, value):
    check(changed(sound, key, value))


@pytest.mark.parametrize(
    "section", ["data", "hardware", "callbacks", "logger", "experts", "teacher"]
)
def test_a_removed_group_is_refused(sound, section):
    error = refused({name: node for name, node in sound.items() if name != section})
    assert error.where == section and f"{section}=" in error.cure


# sources


@pytest.mark.parametrize("cache", ["{shapes}", "{shapes}/", "{shapes}/train", "{shapes}/.."])
def test_two_sources_with_one_cache_are_refused(sound, cache):
    shapes_source = sound["data"]["sources"]["shapes"]
    error = refused(
        changed(
            sound,
            "data.sources.other",
            {**shapes_source, "cache": cache.format(shapes=shapes_source["cache"])},
        ),
    )
    assert error.where == "data.sources.other.cache" and "shapes" in error.what
    check(
        changed(
            sound, "data.sources.other", {**shapes_source, "cache": shapes_source["cache"] + "_2"}
        )
    )


@pytest.mark.parametrize(
    ("root", "inside"), [(".", "cache"), ("cache", "cache"), ("outputs/red", "outputs")]
)
def test_outputs_inside_input_folders_are_refused(sound, tmp_path, root, inside):
    """Its previews would be read as pictures of the set, and its shards as pairs."""
    paths = {"root": str(tmp_path), "cache": f"{tmp_path}/cache", "outputs": f"{tmp_path}/outputs"}
    shapes_source = {**sound["data"]["sources"]["shapes"], "cache": f"{tmp_path}/cache/photos"}
    node = {"_target_": "tinyflux_pl.data.records.folder.Folder", "root": f"{tmp_path}/{root}"}
    config = changed(
        {**sound, "paths": paths}, "data.sources.photos", {**shapes_source, "train": node}
    )
    if root == "outputs/red":  # pictures that another run has drawn
        check(config)
        return
    error = refused(config)
    assert error.where == "data.sources.photos.train.root" and f"{tmp_path}/{inside}" in error.what
    check(changed(config, "data.sources.photos.train.root", f"{tmp_path}/photos"))


# whom a logger sends the user's keys


@pytest.mark.parametrize("key", ["settings", "tracking_uri"])
def test_a_configuration_may_not_set_logger_endpoints(sound, key):
    error = refused(changed(sound, f"logger.wandb.{key}", {"base_url": "https://evil.invalid"}))
    assert error.where == f"logger.wandb.{key}" and "shell" in error.cure


# through the recipes


@pytest.mark.parametrize("task", ["train", "extract"])
@pytest.mark.parametrize(
    "line", ["data.shard_size=abc", "hardware.threads=-1", "hardware.accumulation=0"]
)
def test_recipes_check_values_before_creating_files(tmp_path, task, line):
    with pytest.raises(ConfigError):
        run(task, tmp_path, *SMALLEST, line)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("sampler.steps=abc", "steps"),
        ("+sampler.sovler=heun", "did you mean solver?"),
        ("guidance.scale=abc", "scale"),
        ("guidance.interval=[a,b]", "interval"),
        ("+guidance.scael=2", "did you mean scale?"),
        ("optimizer.lr=-1", "learning rate"),
    ],
)
def test_arguments_outside_a_signature_are_refused_before_creating_files(tmp_path, line, says):
    with pytest.raises(ConfigError) as caught:
        run("train", tmp_path, *SMALLEST, line)
    assert says in str(caught.value) and not (tmp_path / "cache").exists()
