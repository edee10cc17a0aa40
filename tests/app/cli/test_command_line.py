"""A wrong word meets the nearest right one; nothing dangerous reaches Hydra; torch stays asleep."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tinyflux_pl.app.cli.command_line import prepare
from tinyflux_pl.core.errors import ConfigError


def refused(conf: Path, *argv: str, name: str = "train") -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        prepare(list(argv), conf, name)
    assert len(str(caught.value).splitlines()) <= 3
    return caught.value


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["experts=lun_sol"], "did you mean lune_sol? there are: lune, lune_sol, none"),
        (["-m", "experts=lune,lun_sol"], "did you mean lune_sol?"),
        (["+experiment=lnog"], "did you mean long?"),
        (["model=[tiny,bse]"], "did you mean base?"),
        (["model=null"], "there are: base, tiny"),
        (["experts=[lune,null]"], "there are: lune, lune_sol, none"),
        (["model.dpeth=3"], "did you mean model.depth?"),
        (["lr=3"], "did you mean model.optimizer.lr?"),
        (["modl=tiny"], "did you mean model?"),
        (["expert=lune"], "did you mean experts?"),
        (["step=3"], "did you mean steps?"),
        (["hydra.runn.dir=x"], "did you mean hydra.run.dir?"),
        (["hydra/launcher=basik"], "did you mean basic?"),
        (["data.sizes.7=3"], "data.sizes."),
        (["zzzzqqq=1"], "all keys: --cfg job"),
        (["model"], "write key=value"),
        (["data.sizes=[1,2"], "quote it"),
        (["--steps=3"], "write steps=... without dashes"),
        (["--config-dir", "/nowhere/at/all"], "a folder that exists"),
    ],
)
def test_the_nearest_right_word_is_named(conf, argv, says):
    assert says in refused(conf, *argv).cure


def test_what_exists_passes(conf):
    lines = [
        ["model.depth=3", "data.sizes.1=8", "+extra.key=1", "~steps", "model=base", "++more=4"],
        ["experiment=long", "hydra.run.dir=elsewhere", "model.optimizer.lr=1e-3"],
        [
            "-m",
            "model=tiny,base",
            "steps=range(1,9)",
            "experts=glob(lune*)",
            "model.optimizer.lr=interval(0.1,0.2)",
        ],
    ]
    for line in lines:
        assert prepare(line, conf, "train") == line


def test_a_value_that_must_be_given(conf):
    assert refused(conf, name="generate").cure == "add checkpoint=..."
    (conf / "experiment" / "folder.yaml").write_text(
        "# @package _global_\nalbum: {root: '???', sources: [{root: '${album.root}'}]}\n"
    )
    assert refused(conf, "experiment=folder").cure == "add album.root=..."
    prepare(["experiment=folder", "album.root=here"], conf, "train")
    prepare(["checkpoint=here"], conf, "generate")
    prepare(["--cfg", "job"], conf, "generate")


def test_flags_keep_working_wherever_they_stand(conf, tmp_path):
    assert prepare(["steps=1", "-m", "model=tiny,base"], conf, "train") == [
        "-m",
        "steps=1",
        "model=tiny,base",
    ]
    assert prepare(["steps=1", "--cfg", "job", "--resolve"], conf, "train") == [
        "--cfg",
        "job",
        "--resolve",
        "steps=1",
    ]
    assert prepare(["--info", "steps=1"], conf, "train") == ["--info", "steps=1"]
    more = tmp_path / "more" / "experts"
    more.mkdir(parents=True)
    (more / "mine.yaml").write_text("mine: {width: 1}\n")
    prepare(["--config-dir", str(more.parent), "experts=mine"], conf, "train")
    assert "mine" not in refused(conf, "experts=lun").cure
    assert "unpickles" in refused(conf, "--experimental-rerun", "x.pickle").what
    assert prepare(["--config-name=generate", "checkpoint=a"], conf, "train")[1] == "generate"


def test_what_cannot_be_resolved_is_refused(conf):
    (conf / "experiment" / "odd.yaml").write_text(
        "# @package _global_\nhydra: {callbacks: {x: '${nowhere.at.all}'}}\n"
    )
    assert "cannot resolve" in refused(conf, "experiment=odd").what


def test_a_secret_in_hydras_own_node_is_refused_too(conf):
    assert "a secret stands" in refused(conf, "hydra.run.dir=/tmp/hf_" + "a" * 30).what


def test_a_job_masks_also_where_a_launcher_gave_it_a_process_of_its_own(conf, monkeypatch):
    from hydra import compose, initialize_config_dir
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from tinyflux_pl.app.cli import command_line
    from tinyflux_pl.config import redact

    asked = []
    monkeypatch.setattr(redact, "install", lambda: asked.append("installed"))
    with initialize_config_dir(str(conf), version_base=None):
        config = compose("train", return_hydra_config=True)
    OmegaConf.update(config, "hydra.runtime.output_dir", "out", force_add=True)
    HydraConfig.instance().set_config(config)
    try:
        job = OmegaConf.masked_copy(config, [key for key in config if key != "hydra"])
        command_line._job(
            job, lambda found: asked.append(found["steps"]) or 0, [], ["train.py"], here=False
        )
    finally:
        HydraConfig.instance().cfg = None
    assert asked == ["installed", 10]


def test_a_broken_yaml_file_is_three_lines_too(conf):
    (conf / "experiment" / "torn.yaml").write_text("steps: [1, 2\nn: {")
    assert "flow" in refused(conf, "experiment=torn").what


SCRIPT = """
import json, os, sys
from pathlib import Path
from tinyflux_pl.app.cli.command_line import run
from tinyflux_pl.core.errors import StaleCache
def main(config):
    if config["prompt"] == "fail":
        raise StaleCache("the cache is old", where="here", cure="rebuild it")
    if config["prompt"] == "bug":
        raise RuntimeError("a bug with s3cret-value-0123")
    if config["prompt"] == "errno":
        raise OSError(config["steps"], os.strerror(config["steps"]), "/photos/cache/manifest.json")
    with open("seen.jsonl", "a") as file:
        file.write(json.dumps({**config, "torch": "torch" in sys.modules}) + chr(10))
    return config["steps"] if config["prompt"] == "code" else 0
run("train", main, Path(sys.argv.pop(1)))
"""


def script(conf: Path, *argv: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, str(conf), *argv],
        cwd=conf.parent,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


def seen(conf: Path) -> list[dict]:
    file = conf.parent / "seen.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def test_a_run_receives_plain_containers_and_torch_is_not_imported_for_it(conf):
    done = script(conf, "prompt=a large red circle, top left", "experts=lune")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    (config,) = seen(conf)
    assert config["prompt"] == "a large red circle, top left"
    assert (
        config["experts"] == {"lune": {"width": 64}}
        and "hydra" not in config
        and not config["torch"]
    )
    assert (conf.parent / "run").is_dir(), "hydra.run.dir is honoured"


def test_multirun_keeps_the_comma_and_runs_every_job(conf):
    done = script(conf, "-m", "prompt=red, blue", "steps=1,2")
    assert done.returncode == 0, done.stderr
    assert [(c["prompt"], c["steps"]) for c in seen(conf)] == [("red, blue", 1), ("red, blue", 2)]


def test_a_typo_costs_three_lines_and_exit_code_2(conf):
    done = script(conf, "experts=lun_sol")
    assert done.returncode == 2 and done.stdout == "" and not seen(conf)
    assert (
        len(done.stderr.splitlines()) == 3
        and "lune_sol" in done.stderr
        and "Traceback" not in done.stderr
    )


def test_errors_of_a_run_are_clean_and_have_codes(conf):
    done = script(conf, "prompt=fail")
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["the cache is old", "  where: here", "  do:    rebuild it"]
    assert "Traceback" in script(conf, "prompt=fail", TINYFLUX_DEBUG="1").stderr
    assert script(conf, "prompt=code", "steps=3").returncode == 3
    bug = script(conf, "prompt=bug", MY_TOKEN="s3cret-value-0123")
    assert bug.returncode == 1 and "RuntimeError: a bug with ***" in bug.stderr
    assert "s3cret-value-0123" not in bug.stderr + bug.stdout


@pytest.mark.parametrize(
    "number", [errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT]
)
def test_a_missing_right_and_a_full_disk_are_told_with_the_file_and_a_cure(conf, number):
    done = script(conf, "prompt=errno", f"steps={number}")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    what, where, cure = done.stderr.splitlines()
    assert "manifest.json" in what and where.endswith("/photos/cache") and "paths.root=" in cure


def test_a_failing_job_of_a_sweep_is_named_and_does_not_stop_the_others(conf):
    done = script(conf, "-m", 'prompt=choice("fail","fine")')
    assert done.returncode == 1
    assert done.stderr.count("the cache is old") == 1 and "Traceback" not in done.stderr
    assert [c["prompt"] for c in seen(conf)] == ["fine"]


def test_help_and_cfg_answer(conf):
    shown = script(conf, "--cfg", "job", "prompt=a, b")
    assert shown.returncode == 0 and "prompt: a, b" in shown.stdout
    assert script(conf, "--help").returncode == 0
    assert script(conf, "--cfg", "nonsense").returncode == 2
