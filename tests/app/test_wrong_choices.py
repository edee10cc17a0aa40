"""A wrong word meets the right one, and a wrong value is named before anything is made."""

import pytest

from tests.app.runs import CONF, SMALLEST, run
from tests.app.test_bad_input import refused
from tinyflux_pl.app.cli.check_line import check_line
from tinyflux_pl.core import errors


@pytest.mark.parametrize(
    ("line", "near"),
    [
        ("model=tinny", "did you mean tiny?"),
        ("experts=lunesol", "did you mean lune_sol?"),
        ("experts.lune.dropuot=0.2", "did you mean experts.lune.dropout?"),
        ("step=10", "did you mean steps?"),
        ("data.rot=x", "did you mean data.root?"),
        ("optimiser=adamw", "did you mean optimizer?"),
    ],
)
def test_an_unknown_choice_is_refused_with_the_nearest(line, near):
    required = (
        ["experts=lune"]
        if line.startswith("experts.")
        else ["data=folder"]
        if "data" in line
        else []
    )
    with refused(errors.ConfigError) as caught:
        check_line([*required, line], CONF, "train")
    assert near in caught.value.cure


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (("model=as_trained",), "generate.py"),
        (
            ("model.patch_size=2", "data.image_size=42"),
            "multiples of 4, such as data.image_size=40",
        ),
        (("data.image_size=large",), "data.image_size=[48,64]"),
        (("data.image_size=[48]",), "data.image_size=[48,64]"),
        (("objective.error=l3",), "huber"),
        (("timesteps.std=-1",), "std"),
        (("sampler.solver=hoin",), "heun"),
        (("data.store_dtype=int8",), "data.store_dtype"),
        (("data.store_dtype=float8",), "float32"),
        (("schedule.decay=slow",), "cosine"),
        (("+model.depth=3",), "depth"),
        (("model.hidden_size=33",), "hidden_size"),
    ],
)
def test_an_invalid_value_is_refused_before_creating_files(tmp_path, overrides, says):
    small = () if "model=as_trained" in overrides else SMALLEST
    with refused(errors.ConfigError) as caught:
        run("train", tmp_path, *small, *overrides)
    assert says in str(caught.value)
    assert not (tmp_path / "cache").exists() and not (tmp_path / "outputs").exists()
