"""Configuration to objects: innermost first, every key checked against its target's signature."""

import functools
import sys
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from omegaconf import OmegaConf

from tinyflux_pl.config.build import build, check_binds, plain
from tinyflux_pl.core.errors import ConfigError

PARTS = "tinyflux_pl.denoisers.testing_parts"
built: list[str] = []


@dataclass
class Inner:
    width: int = 4

    def __post_init__(self) -> None:
        built.append("inner")


@dataclass
class Outer:
    rate: float
    inner: Inner | None = None
    knots: tuple[float, ...] = ()
    folder: Path | None = None
    kind: Literal["a", "b"] = "a"
    parts: dict = field(default_factory=dict)
    injected: object = None

    def __post_init__(self) -> None:
        built.append("outer")


def build_anything(rate: float, **anything: object) -> dict:
    return {"rate": rate, **anything}


@pytest.fixture(autouse=True)
def parts(monkeypatch):
    module = types.ModuleType(PARTS)
    for part in (Inner, Outer, build_anything):
        monkeypatch.setattr(part, "__module__", PARTS)
        setattr(module, part.__name__, part)
    monkeypatch.setitem(sys.modules, PARTS, module)
    built.clear()


def node(name: str, **arguments):
    return {"_target_": f"{PARTS}.{name}", **arguments}


def test_nested_nodes_are_built_innermost_first():
    outer = build(
        node("Outer", rate=0.5, inner=node("Inner", width=3), parts={"x": [node("Inner")]})
    )
    assert (
        outer.inner == Inner(3)
        and outer.parts == {"x": [Inner()]}
        and built[:3] == ["inner", "inner", "outer"]
    )


def test_plain_values_arrive_in_the_declared_type():
    outer = build(node("Outer", rate=1, knots=[0, 0.5], folder="a/b"))
    assert type(outer.rate) is float and outer.knots == (0.0, 0.5) and outer.folder == Path("a/b")
    assert all(type(k) is float for k in outer.knots)


def test_objects_are_injected_into_the_outermost():
    item = object()
    assert build(node("Outer", rate=1.0), injected=item).injected is item


def test_partial_makes_a_factory():
    factory = build(node("Outer", _partial_=True, kind="b"))
    assert isinstance(factory, functools.partial) and not built
    assert factory(rate=2.0).kind == "b"


def test_containers_without_target_are_walked_and_configs_resolved():
    config = OmegaConf.create({"width": 7, "a": {"b": [node("Inner", width="${width}")]}})
    assert build(config) == {"width": 7, "a": {"b": [Inner(7)]}}
    assert build(None) is None
    assert type(build(OmegaConf.create({"x": {"y": [1]}}))["x"]["y"]) is list


@pytest.mark.parametrize("judge", [build, check_binds])
@pytest.mark.parametrize(
    ("wrong", "what", "cure"),
    [
        (node("Outer", rate=1.0, knts=[1.0]), "takes no 'knts'", "did you mean knots?"),
        (
            node("Outer", rate=1.0, inner=node("Inner", widht=3)),
            "takes no 'widht'",
            "did you mean width?",
        ),
        (node("Outer", rate="fast"), "got 'fast'", "rate to a number"),
        (
            node("Outer", rate=1.0, inner=node("Inner", width=2.5)),
            "got 2.5",
            "inner.width to an integer",
        ),
        (node("Outer", rate=1.0, kind="c"), "got 'c'", "one of a, b"),
        (node("Outer", rate=True), "got True", "number"),
        (node("Outer", rate=1.0, inner=node("Inner", width=None)), "got None", "an integer"),
        (node("Outer", rate=1.0, _args_=[1]), "_args_", "parameter"),
        (node("Outer", rate=1.0, _partial_="yes"), "_partial_", "parameter"),
    ],
)
def test_a_wrong_key_or_value_is_named_before_anything_is_built(judge, wrong, what, cure):
    with pytest.raises(ConfigError) as caught:
        judge({"parts": {"x": wrong}})
    assert (
        what in caught.value.what
        and cure in caught.value.cure
        and caught.value.where.startswith("parts.x")
    )
    assert not built


def test_required_arguments_are_required_only_by_build():
    check_binds(node("Outer"))
    with pytest.raises(ConfigError, match=r"Outer needs rate"):
        build(node("Outer"))
    assert build(node("Outer"), rate=1.0).rate == 1.0


def test_injected_names_are_checked_too():
    with pytest.raises(ConfigError, match="takes no 'injcted'"):
        build(node("Outer", rate=1.0), injcted=1)
    with pytest.raises(ConfigError, match="takes no 'injcted'"):
        check_binds(node("Outer"), extra=["injcted"])
    with pytest.raises(ConfigError, match="without _target_"):
        build({"a": 1}, injected=1)


def test_a_target_with_keyword_arguments_accepts_any_name():
    assert build(node("build_anything", rate=1.0, other=2)) == {"rate": 1.0, "other": 2}
    with pytest.raises(ConfigError):
        build(node("build_anything", rate="x"))


def test_missing_values_and_broken_interpolations_are_named():
    assert plain(OmegaConf.create({"a": 1, "b": ["${a}"]})) == {"a": 1, "b": [1]}
    with pytest.raises(ConfigError, match="checkpoint has no value"):
        plain(OmegaConf.create({"checkpoint": "???"}))
    with pytest.raises(ConfigError, match="cannot resolve x"):
        plain(OmegaConf.create({"x": "${nowhere}"}))
