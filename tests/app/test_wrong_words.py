"""Unknown words are answered with the nearest known one, of the same group first."""

import pytest

from tests.app.runs import CONF
from tinyflux_pl.app.cli.check_line import check_line
from tinyflux_pl.config import signatures, unused_keys
from tinyflux_pl.core.errors import ConfigError


def refused(script, *line):
    with pytest.raises(ConfigError) as caught:
        check_line(list(line), CONF, script)
    assert len(str(caught.value).splitlines()) == 3
    return caught.value


DRAW = ("checkpoint=x", "prompt=x")


@pytest.mark.parametrize(
    ("script", "line", "advice"),
    [
        ("train", ["epochs=5"], "did you mean steps?"),
        ("train", ["+epochs=5"], "did you mean steps?"),
        ("train", ["max_steps=5"], "did you mean steps?"),
        ("train", ["learning_rate=1"], "did you mean optimizer.lr?"),
        ("train", ["resolution=64"], "did you mean data.image_size?"),
        ("train", ["+lora=x"], "train.py method=lora trains an adapter"),
        ("train", ["lora_rank=4"], "train.py method=lora trains an adapter"),
        ("train", ["train_text_encoder=true"], "text encoders are not trained"),
        ("train", ["hardware=gpu"], "did you mean gpu_12gb?"),
        ("train", ["experts.lune.weight=0.3"], "it comes with experts=lune"),
        ("train", ["logger.wandb.mode=online"], "it comes with logger=wandb"),
        ("train", ["data.root=x"], "or data=folder or"),
        ("train", ["resume=true"], "resume=auto"),
        ("train", ["seed=1,2"], "--multirun"),
        ("train", ["data.image_size=48,64"], "data.image_size=[48,64]"),
        ("train", ["model=tiny,small"], "--multirun"),
        ("generate", [*DRAW, "steps=3"], "did you mean sampler.steps?"),
        ("generate", [*DRAW, "cfg_scale=3"], "did you mean guidance.scale?"),
        ("generate", [*DRAW, "num_inference_steps=3"], "did you mean sampler.steps?"),
        ("generate", [*DRAW, "+optimizer=adamw"], "leave it out"),
        ("generate", [*DRAW, "lora_path=x"], "generate.py lora=FILE draws with one"),
        ("extract", ["+epochs=3"], "leave it out"),
    ],
)
def test_the_nearest_valid_word_is_named(script, line, advice):
    assert advice in refused(script, *line).cure


UNREAD = (
    "+epochs=5",
    "+lora=x",
    "+notes=hello",
    "+data.fold=3",
    "+teacher.depth=3",
    "+hardware.batchsize=3",
)
UNREAD += ("+callbacks.ema.rate=1", "+paths.logs=x", "+a.b.c=1", "++stesp=3")
UNREAD += ("+flags=[x]", "+overrides=[x]", "+prompt=x", "+negative_prompt=x")


@pytest.mark.parametrize("line", UNREAD)
def test_an_unread_key_is_refused_and_never_suggested(line):
    error = refused("train", line)
    key = line.lstrip("+").partition("=")[0]
    assert error.what.startswith("nothing reads ") and error.where and f"+{key}" not in str(error)
    without = refused("train", line.lstrip("+"))
    assert f"+{key}=" not in without.cure


def test_a_parameter_absent_from_the_network_is_not_suggested():
    assert "+model.depth" not in refused("train", "model.depth=3").cure
    assert "it can be added: +model.mlp_ratio=..." in refused("train", "model.mlp_ratio=3").cure


def test_a_user_key_referenced_by_interpolation_is_accepted(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "wide.yaml").write_text(
        "# @package _global_\nwide: 64\ndata: {side: 32, image_size: '${.side}'}\nmodel: "
        "{hidden_size: '${wide}'}\n"
    )
    assert check_line(["--config-dir", str(tmp_path), "experiment=wide"], CONF, "train").arguments
    (tmp_path / "experiment" / "slip.yaml").write_text("# @package _global_\nstesp: 64\n")
    assert (
        "nothing reads stesp"
        in refused("train", "--config-dir", str(tmp_path), "experiment=slip").what
    )


def test_absolute_relative_and_select_interpolations_count_as_reads():
    raw = {
        "a": {"b": "${.c}", "c": "${d.e}"},
        "f": "${oc.select:g.h,3}",
        "i": ["${a.b}", {"j": "${..k}"}],
    }
    assert sorted(unused_keys.references(raw)) == ["a.b", "a.c", "d.e", "g.h", "i.k"]


def test_suggestions_prefer_keys_of_the_same_node():
    assert signatures.nearest("gpu", ["cpu", "gpu_12gb", "gpu_24gb"]) == ["gpu_12gb"]
    assert signatures.nearest("steps", ["seed", "plan", "sampler.steps"]) == ["sampler.steps"]
    assert signatures.nearest("optimizer.wieght_decay", ["optimizer.weight_decay", "data.weight"])[
        0
    ].startswith("opt")
    assert signatures.nearest("data.foo", ["schedule.floor", "data.name"]) == ["data.name"]
