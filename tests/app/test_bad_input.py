"""User errors are answered by what, where and what to do, and leave existing files intact."""

import json
import os
import re
import shlex
import subprocess
import sys
from contextlib import contextmanager

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image

from tests.app.runs import CONF, SMALLEST, photographs, run
from tinyflux_pl.app import run as recipes
from tinyflux_pl.app.cli.check_line import check_line
from tinyflux_pl.config.quoting import quoted
from tinyflux_pl.core import errors

ROOT = CONF.parent


@contextmanager
def refused(kind=errors.TinyFluxError):
    """The error, which must say what, where and what to do."""
    with pytest.raises(kind) as caught:
        yield caught
    error = caught.value
    assert error.what and error.where and error.cure, str(error)
    lines = str(error).splitlines()
    assert any(line.startswith("  where: ") for line in lines) and lines[-1].startswith("  do:    ")


@pytest.fixture
def photos(tmp_path):
    return photographs(tmp_path / "photos", ("coffee", "rocket", "coins", "camera"), side=32)


def folder(photos):
    return ("data=folder", f"data.root='{photos}'", "data.image_size=16", *SMALLEST)


def shards(root):
    """Every file of the caches, but for locks and what only saves time."""
    kept = (p for p in sorted(root.rglob("*")) if p.is_file() and not p.name.endswith(".lock"))
    return {p: p.read_bytes() for p in kept if "decoded." not in p.name}


# the command line


def entry(script, *argv, cwd=ROOT):
    return subprocess.run(
        [sys.executable, ROOT / f"{script}.py", *argv], cwd=cwd, capture_output=True, text=True
    )


def test_train_py_prints_three_lines_and_no_traceback(tmp_path, photos):
    photos.joinpath("coins.txt").unlink()
    line = ("data=folder", f"data.root={photos}", "debug=fast", f"paths.root={tmp_path}")
    completed = entry("extract", *line)
    assert completed.returncode == 1 and "Traceback" not in completed.stderr + completed.stdout
    assert [s.split(":")[0].strip() for s in completed.stderr.strip().splitlines()[-2:]] == [
        "where",
        "do",
    ]
    assert "1 file (coins.png) without a caption" in completed.stderr


# photographs


@pytest.mark.parametrize("text", [None, "", " \n"])
def test_a_missing_or_empty_caption_is_refused(tmp_path, photos, text):
    caption = photos / "rocket.txt"
    caption.unlink() if text is None else caption.write_text(text)
    with refused(errors.CaptionError) as caught:
        run("extract", tmp_path, *folder(photos))
    assert "rocket.jpg" in caught.value.what and "allow_missing_captions" in caught.value.cure
    assert not (tmp_path / "cache").exists()
    run("extract", tmp_path, *folder(photos), "data.allow_missing_captions=true")


def spoil(photos):
    """A photograph cut short in the middle of its pixels, and two files that are no images."""
    original = (photos / "camera.jpg").read_bytes()
    (photos / "camera.jpg").write_bytes(original[: len(original) * 2 // 3])
    (photos / "notes [1].png").write_text("these are notes")
    (photos / "notes [1].txt").write_text("a caption")
    (photos / "page.jpg").write_text("<!DOCTYPE html><html>404</html>")
    return ("camera.jpg", "notes [1].png", "page.jpg")


def test_bad_images_are_named_before_the_first_is_encoded(tmp_path, photos):
    bad = spoil(photos)
    with refused(errors.ImageError) as caught:
        run("extract", tmp_path, *folder(photos))
    assert (
        all(name in caught.value.what for name in bad[1:])
        and "data.skip_bad=true" in caught.value.cure
    )
    for name in bad[1:]:
        (photos / name).unlink()
    with refused(errors.ImageError) as caught:  # whole by its header, damaged inside
        run("extract", tmp_path, *folder(photos))
    assert "camera.jpg: truncated" in caught.value.what
    assert not list(tmp_path.rglob("shard_*"))


def test_skipped_images_are_listed_once_in_the_closing_tables(tmp_path, photos, capsys):
    bad = spoil(photos)
    chosen = (*folder(photos), "data.skip_bad=true")
    run("extract", tmp_path, *chosen)
    run("train", tmp_path, *chosen, "run=x", "steps=1")
    prepared, trained = capsys.readouterr().out.split("training is done")
    for table in (prepared, trained):
        table_text = re.sub(r"[\s│]+", " ", table)
        assert "skipped 3" in table_text and [table_text.count(f" {name}:") for name in bad] == [
            1,
            1,
            1,
        ]
    results = json.loads((tmp_path / "outputs" / "x" / "results.json").read_text())
    assert [line.split(":")[0] for line in results["skipped"]] == list(bad)


def test_a_mask_of_another_size_and_a_missing_folder_are_refused(tmp_path, photos):
    for file in photos.glob("*.*g"):
        Image.new("L", (5, 5)).save(file.with_suffix(".mask.png"))
    with refused(errors.ImageError) as caught:
        run("extract", tmp_path, *folder(photos))
    assert "different sizes" in caught.value.what
    with refused(errors.DataError):
        run("extract", tmp_path, *folder(tmp_path / "nowhere"))


# caches


def obeyed(error, root):
    """Run the command that an error names, word for word."""
    command = re.match(r"(.*? extract\.py .*?); or keep both", error.cure)[1]
    interpreter, script, *line = shlex.split(command)
    assert (
        os.path.abspath(interpreter) == os.path.abspath(sys.executable) and script == "extract.py"
    )
    assert any(str(root) in word for word in line) and line[-1] == "rebuild=true"
    overrides = check_line(line, CONF, "extract").arguments
    with initialize_config_dir(str(CONF), version_base=None):
        config = OmegaConf.to_container(compose("extract", overrides=overrides), resolve=True)
    recipes.extract(config)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (("codec.fold=4",), "codec.fold: cache 2, run 4"),
        (("text.width=8",), "text"),
        (("data.image_size=24",), "size: cache 16, run 24"),
        (("data.fit_mode=pad",), 'fit: cache "crop", run "pad"'),
        (("experts.lune.clock=literal",), 'clock: cache "matched", run "literal"'),
        (("teacher.lune.name=sol",), "teacher"),
    ],
    ids=["codec", "text", "size", "fit", "clock", "teacher"],
)
def test_a_stale_cache_names_the_difference_and_a_command_that_repairs_it(
    tmp_path, photos, changed, says
):
    base = (*folder(photos), "experts=lune", "model.patch_size=1")
    run("extract", tmp_path, *base)
    before = shards(tmp_path / "cache")
    with refused(errors.StaleCache) as caught:
        run("train", tmp_path, *base, *changed, "run=one", "steps=1")
    assert says in caught.value.what
    assert shards(tmp_path / "cache") == before
    obeyed(caught.value, tmp_path)
    run("train", tmp_path, *base, *changed, "run=two", "steps=1")
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.suffix in (".new", ".old")]


def test_the_suggested_second_cache_folder_works(tmp_path, photos):
    base = (*folder(photos), f"data.sources.folder.cache='{tmp_path}/my caches/'")
    run("extract", tmp_path, *base)
    with refused(errors.StaleCache) as caught:
        run("train", tmp_path, "steps=1", *base, "codec.fold=4", "model.patch_size=1")
    (other,) = shlex.split(re.search(r"add (.+) to this run", caught.value.cure)[1])
    run(
        "train",
        tmp_path,
        "steps=1",
        *base,
        "codec.fold=4",
        "model.patch_size=1",
        quoted(other),
        "run=two",
    )
    run("train", tmp_path, "steps=1", *base, "run=one")
    assert (tmp_path / "my caches_2" / "train").is_dir(), "beside the old one, not in it"


def test_the_literal_clock_of_sol_requires_three_statistics(tmp_path, photos):
    with refused(errors.ConfigError) as caught:
        run("extract", tmp_path, *folder(photos), "experts=sol", "experts.sol.clock=literal")
    assert caught.value.where == "experts.sol.stats" and not list(tmp_path.rglob("shard_*"))


def test_an_unreadable_teacher_is_refused_before_images_are_encoded(tmp_path, photos):
    (tmp_path / "sd15" / "unet").mkdir(parents=True)
    chosen = (
        "experts=lune",
        "teacher=sd15_flow",
        f"teacher.unet='{tmp_path}/sd15'",
        f"teacher.weights='{tmp_path}'",
    )
    with refused(errors.HubError):
        run("extract", tmp_path, *folder(photos), *chosen)
    assert not list(tmp_path.rglob("shard_*"))
