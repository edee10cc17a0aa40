"""Fault 17: configurations that name code to run are refused on the command line and in files."""

from __future__ import annotations

import importlib
import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from tests.faults import forks
from tests.faults.conftest import FULL
from tests.faults.hostile_targets import HYDRA, POSITIONS, targets
from tinyflux_pl.app.cli.check_line import CONF, check_line
from tinyflux_pl.app.cli.command_line import run
from tinyflux_pl.config.build import build, plain
from tinyflux_pl.config.suggest import composed
from tinyflux_pl.core.errors import ConfigError, TinyFluxError


@pytest.fixture
def marker(tmp_path, monkeypatch):
    """A file that no test may find; evil_module can be imported and would write it."""
    (tmp_path / "evil").mkdir()
    monkeypatch.syspath_prepend(tmp_path / "evil")
    yield tmp_path / "marker"
    assert not (tmp_path / "marker").exists() and "evil_module" not in sys.modules


def written(folder: Path, content: dict[str, Any]) -> list[str]:
    """The words that bring a hostile experiment into the real configuration."""
    file = folder / "conf" / "experiment" / "evil.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"# @package _global_\n{json.dumps(content)}\n")
    return ["--config-dir", str(folder / "conf"), "experiment=evil"]


def refused(work: Any, *arguments: Any) -> bool:
    try:
        work(*arguments)
    except ConfigError:
        return True
    return False


def from_the_line(words: list[str], part: str) -> None:
    """Process the words as train.py does, up to the first object."""
    check_line(words, CONF, "train")
    (config,) = composed(CONF, "train", words[2:], words[1])
    build(plain(config[part]))


def test_every_hostile_target_writes_the_marker_when_called(tmp_path):
    """Without this the others could not fail."""

    def work() -> None:
        sys.path.insert(0, str(tmp_path))
        marker = tmp_path / "marker"
        for name, arguments in targets(tmp_path, marker).items():
            parts, depth = name.split("."), 1
            target = importlib.import_module(parts[0])
            while depth < len(parts):
                try:
                    target = importlib.import_module(".".join(parts[: depth + 1]))
                except ModuleNotFoundError:
                    target = getattr(target, parts[depth])
                depth += 1
            keywords = {key: value for key, value in arguments.items() if key != "_args_"}
            if name.endswith("Path.touch"):
                keywords = {"self": Path(keywords["self"])}
            if name.endswith("write_bytes"):
                keywords["content"] = keywords["content"].encode()
            with suppress(RuntimeError):  # torch.load, once the pickle has run
                result = target(*arguments.get("_args_", ()), **keywords)
            if hasattr(result, "wait"):
                result.wait()
            elif hasattr(result, "close"):
                result.close()
            assert marker.exists(), name
            marker.unlink()

    ended = forks.run(work, tmp_path / "log")
    assert ended.code == 0, ended.printed


def test_twenty_hostile_targets_are_refused_in_four_places(tmp_path, marker, figure):
    by_line, by_build = 0, 0
    chosen = targets(tmp_path / "evil", marker)
    for number, (name, arguments) in enumerate(chosen.items()):
        for position, (kind, make) in enumerate(POSITIONS.items()):
            content = make({"_target_": name, **arguments})
            part = "optimizer" if kind == "partial" else "codec"
            by_build += refused(build, plain(OmegaConf.create(content))[part])
            # composing the real configuration takes half a second
            if FULL or position == number / 2 % len(POSITIONS):
                by_line += refused(from_the_line, written(tmp_path, content), part)
    figure(17, "20 targets in 4 places, at the builder", by_build, 80)
    figure(17, "20 targets in 4 places, on the real command line", by_line, 80 if FULL else 10)


def test_a_hostile_target_of_a_later_sweep_job_is_refused(tmp_path, marker, figure):
    """The first job is harmless; the choice of the second would run code."""
    chosen = list(targets(tmp_path / "evil", marker))
    names = chosen if FULL else chosen[:1]
    harmless, passed = "tinyflux_pl.denoisers.tinyflux.build", 0
    for name in names:

        def work(name: str = name) -> None:
            sweep = ["--multirun", f"model._target_={harmless},{name}"]
            sys.argv = [
                "train.py",
                *sweep,
                "debug=fast",
                "preflight=only",
                f"paths.root={tmp_path / 'root'}",
            ]
            run("train")

        ended = forks.run(work, tmp_path / "log", timeout=600)
        passed += (
            ended.code == 2
            and name in ended.printed
            and "Traceback" not in ended.printed
            and not marker.exists()
        )
    figure(
        17, "targets as the second choice of a sweep, on the real command line", passed, len(names)
    )


def test_a_target_that_appears_by_interpolation_is_refused(marker):
    node = f"{{_target_: os.system, command: touch {marker}}}"
    hidden = OmegaConf.create({"codec": f'${{oc.decode:"{node}"}}', "list": ["${codec}"]})
    assert refused(build, plain(hidden)["codec"]) and refused(build, plain(hidden)["list"])


@pytest.mark.parametrize("kind", HYDRA)
def test_hostile_hydra_nodes_are_refused(tmp_path, marker, kind):
    """As the root configuration, which alone may hold a search path."""
    node = json.loads(json.dumps(HYDRA[kind]).replace("MARKER", str(marker)))
    targets(tmp_path / "evil", marker)
    root = tmp_path / "conf"
    root.mkdir()
    (root / "train.yaml").write_text(json.dumps({"hydra": node}))
    with pytest.raises(ConfigError) as caught:
        check_line([], root, "train")
    assert "hydra" in str(caught.value)


@pytest.mark.parametrize(
    "line", ["[pkg://evil_module]", r"[pkg\://evil_module]", "['pkg://evil_module']", "[zip://a]"]
)
@pytest.mark.parametrize("flags", [[], ["-m"], ["--cfg", "job"], ["--info"]])
def test_no_search_path_imports_a_module(tmp_path, marker, line, flags):
    targets(tmp_path / "evil", marker)
    with pytest.raises(ConfigError, match=r"searchpath may not import"):
        check_line([*flags, f"hydra.searchpath={line}"], CONF, "train")


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.system ['touch MARKER']", "!!python/name:os.system"]
)
def test_yaml_tags_construct_no_objects(tmp_path, marker, tag):
    words = written(tmp_path, {})
    file = tmp_path / "conf" / "experiment" / "evil.yaml"
    file.write_text(f"# @package _global_\nevil: {tag.replace('MARKER', str(marker))}\n")
    with pytest.raises(TinyFluxError, match="could not determine a constructor"):
        check_line(words, CONF, "train")


def test_the_program_refuses_and_exits(tmp_path, marker):
    (name, arguments), *_ = targets(tmp_path / "evil", marker).items()
    words = written(tmp_path, POSITIONS["nested"]({"_target_": name, **arguments}))

    def work() -> None:
        sys.argv = ["train.py", *words, f"paths.root={tmp_path}"]
        run("train")

    ended = forks.run(work, tmp_path / "log")
    assert ended.code == 2 and f"_target_ is not on the allowlist: {name}" in ended.printed
    assert "Traceback" not in ended.printed and not (tmp_path / "outputs").exists()
