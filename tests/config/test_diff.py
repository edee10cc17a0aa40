"""Effects of a changed key on a run: none, the last bits, or another run."""

import copy
import json

import pytest

from tests.app.runs import configuration
from tinyflux_pl.config.diff import ANOTHER_RUN, LAST_BITS, NOTHING, changes


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return configuration(
        "train",
        tmp_path_factory.mktemp("project"),
        "run=x",
        "steps=100",
        "schedule.warmup_steps=20",
    )


def effects(config, step=10, **changed):
    """Key -> effect, after setting dotted keys."""
    now = copy.deepcopy(config)
    for key, value in changed.items():
        *path, last = key.split("__")
        node = now
        for name in path:
            node = node[name]
        node[last] = value
    return {change.key: change.effect for change in changes(config, now, step)}


def test_the_same_configuration_has_no_changes(config):
    assert effects(config) == {}


@pytest.mark.parametrize(
    "key",
    [
        *(
            "seed",
            "model__hidden_size",
            "optimizer__lr",
            "objective__text_dropout",
            "hardware__batch_size",
        ),
        *("hardware__precision", "callbacks__ema__decay", "data__image_size", "timesteps__mean"),
        *("data__sources__shapes__train__count", "callbacks__guard__warmup"),
    ],
)
def test_keys_that_change_the_result_make_another_run(config, key):
    assert list(effects(config, **{key: 7}).values()) == [ANOTHER_RUN]


@pytest.mark.parametrize(
    "key", ["devices", "accelerator", "strategy", "threads", "compile", "accumulation"]
)
def test_keys_that_change_summation_order_are_classified_as_such(config, key):
    assert effects(config, **{f"hardware__{key}": 7}) == {f"hardware.{key}": LAST_BITS}


@pytest.mark.parametrize(
    "key", ["devices", "accelerator", "strategy", "threads", "compile", "accumulation"]
)
def test_stratified_times_make_another_micro_batch_size_another_run(config, key):
    drawn = {**config, "timesteps": {"_target_": "tinyflux_pl.diffusion.timesteps.Stratified"}}
    expected = ANOTHER_RUN if key in ("devices", "strategy", "accumulation") else LAST_BITS
    assert effects(drawn, **{f"hardware__{key}": 7}) == {f"hardware.{key}": expected}


@pytest.mark.parametrize(
    "key",
    [
        *(
            "steps",
            "callbacks__preview__every_steps",
            "callbacks__log_every_steps",
            "hardware__workers",
        ),
        *(
            "data__sources__shapes__cache",
            "data__evaluation_prompts",
            "sampler__steps",
            "paths__outputs",
        ),
    ],
)
def test_keys_without_effect_on_the_result_are_harmless(config, key):
    assert list(effects(config, **{key: 7}).values()) == [NOTHING]


@pytest.mark.parametrize("key", ["run", "overrides", "resume", "preflight"])
def test_keys_of_a_single_start_are_not_compared(config, key):
    assert effects(config, **{key: 7}) == {}


def test_an_added_expert_makes_another_run(config):
    assert set(
        effects(config, experts={"lune": {"_target_": "tinyflux_pl.experts.lune.Lune"}}).values()
    ) == {ANOTHER_RUN}


def test_a_schedule_is_compared_over_the_steps_already_taken(config):
    """Longer training changes a decaying cosine, not one in warm-up, nor a constant rate."""
    assert effects(config, 50, schedule__total_steps=200) == {"schedule.total_steps": ANOTHER_RUN}
    assert effects(config, 20, schedule__total_steps=200) == {"schedule.total_steps": NOTHING}
    constant = copy.deepcopy(config)
    constant["schedule"]["decay"] = "constant"
    assert effects(constant, 50, schedule__total_steps=200) == {"schedule.total_steps": NOTHING}


def test_an_unclassified_key_makes_another_run(config):
    assert effects(config, novelty=1) == {"novelty": ANOTHER_RUN}


def test_a_new_key_at_its_default_is_harmless(config):
    older = copy.deepcopy(config)
    older["timesteps"] = {"_target_": "tinyflux_pl.diffusion.timesteps.Stratified"}
    now = {**config, "timesteps": {**older["timesteps"], "base": "uniform", "mean": None}}
    assert changes(older, now, 10) == []
    now["timesteps"]["base"] = "logit_normal"
    assert [(c.key, c.effect) for c in changes(older, now, 10)] == [("timesteps.base", ANOTHER_RUN)]


def test_a_configuration_equals_its_json(config):
    assert changes(json.loads(json.dumps(config)), config, 10) == []


def test_a_run_without_the_key_extra_equals_one_with_an_empty_list(config):
    older = copy.deepcopy(config)
    older["callbacks"].pop("extra", None)
    timer = {"_target_": "lightning.pytorch.callbacks.Timer"}
    for extra, effect in (([], []), ([timer], [ANOTHER_RUN])):
        now = {**older, "callbacks": {**older["callbacks"], "extra": extra}}
        assert [change.effect for change in changes(older, now, 10)] == effect


def test_runs_on_folders_from_before_captions_and_frames_continue(tmp_path):
    now = configuration("train", tmp_path, "run=x", "data=folder", f"data.root={tmp_path}")
    then = copy.deepcopy(now)
    nodes = [then["data"], *then["data"]["sources"]["folder"].values()]
    for node in [node for node in nodes if isinstance(node, dict)]:
        for name in ("captions", "buckets", "folders"):
            node.pop(name, None)
    assert not [c for c in changes(then, now, 10) if c.effect == ANOTHER_RUN]
    now["data"]["captions"]["trigger"] = "sks"
    assert [c.key for c in changes(then, now, 10)] == ["data.captions.trigger"]
