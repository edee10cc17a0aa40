"""A wrong word meets the nearest right one; nothing dangerous reaches Hydra; torch stays asleep."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tinyflux_pl.app.cli.check_line import check_line
from tinyflux_pl.core.errors import ConfigError


def refused(conf: Path, *argv: str, name: str = "train") -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        check_line(list(argv), conf, name)
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
def test_a_refusal_names_the_nearest_valid_word(conf, argv, says):
    assert says in refused(conf, *argv).cure


def test_valid_overrides_are_passed_on_unchanged(conf):
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
        assert check_line(line, conf, "train").arguments == line


def test_a_missing_required_value_is_refused_with_its_key(conf):
    assert refused(conf, name="generate").cure == "add checkpoint=..."
    (conf / "experiment" / "folder.yaml").write_text(
        "# @package _global_\nalbum: {root: '???', sources: [{root: '${album.root}'}]}\n"
    )
    assert refused(conf, "experiment=folder").cure == "add album.root=..."
    check_line(["experiment=folder", "album.root=here"], conf, "train")
    check_line(["checkpoint=here"], conf, "generate")
    check_line(["--cfg", "job"], conf, "generate")


def test_flags_are_accepted_at_any_position(conf, tmp_path):
    assert check_line(["steps=1", "-m", "model=tiny,base"], conf, "train").arguments == [
        "-m",
        "steps=1",
        "model=tiny,base",
    ]
    assert check_line(["steps=1", "--cfg", "job", "--resolve"], conf, "train").arguments == [
        "--cfg",
        "job",
        "--resolve",
        "steps=1",
    ]
    assert check_line(["--info", "steps=1"], conf, "train").arguments == ["--info", "steps=1"]
    more = tmp_path / "more" / "experts"
    more.mkdir(parents=True)
    (more / "mine.yaml").write_text("mine: {width: 1}\n")
    check_line(["--config-dir", str(more.parent), "experts=mine"], conf, "train")
    assert "mine" not in refused(conf, "experts=lun").cure
    assert "unpickles" in refused(conf, "--experimental-rerun", "x.pickle").what
    assert (
        check_line(["--config-name=generate", "checkpoint=a"], conf, "train").arguments[1]
        == "generate"
    )


def test_an_unresolvable_interpolation_is_refused(conf):
    (conf / "experiment" / "odd.yaml").write_text(
        "# @package _global_\nhydra: {callbacks: {x: '${nowhere.at.all}'}}\n"
    )
    assert "cannot resolve" in refused(conf, "experiment=odd").what


def test_a_secret_in_the_hydra_node_is_refused(conf):
    assert "contains a secret" in refused(conf, "hydra.run.dir=/tmp/hf_" + "a" * 30).what


def test_secrets_are_masked_in_jobs_launched_as_processes(conf, monkeypatch):
    from hydra import compose, initialize_config_dir
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from tinyflux_pl.app.cli import command_line
    from tinyflux_pl.config import redact

    calls = []
    monkeypatch.setattr(redact, "install", lambda: calls.append("installed"))
    with initialize_config_dir(str(conf), version_base=None):
        config = compose("train", return_hydra_config=True)
    OmegaConf.update(config, "hydra.runtime.output_dir", "out", force_add=True)
    HydraConfig.instance().set_config(config)
    try:
        job = OmegaConf.masked_copy(config, [key for key in config if key != "hydra"])
        command_line._job(
            job,
            lambda job_config: calls.append(job_config["steps"]) or 0,
            [],
            ["train.py"],
            here=False,
        )
    finally:
        HydraConfig.instance().cfg = None
    assert calls == ["installed", 10]


def test_a_broken_yaml_file_is_reported_in_three_lines(conf):
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


def test_a_run_receives_plain_containers_without_importing_torch(conf):
    process = script(conf, "prompt=a large red circle, top left", "experts=lune")
    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")
    (config,) = seen(conf)
    assert config["prompt"] == "a large red circle, top left"
    assert (
        config["experts"] == {"lune": {"width": 64}}
        and "hydra" not in config
        and not config["torch"]
    )
    assert (conf.parent / "run").is_dir(), "hydra.run.dir is honoured"


def test_multirun_keeps_the_comma_and_runs_every_job(conf):
    process = script(conf, "-m", "prompt=red, blue", "steps=1,2")
    assert process.returncode == 0, process.stderr
    assert [(c["prompt"], c["steps"]) for c in seen(conf)] == [("red, blue", 1), ("red, blue", 2)]


def test_a_typo_prints_three_lines_and_exits_with_code_2(conf):
    process = script(conf, "experts=lun_sol")
    assert process.returncode == 2 and process.stdout == "" and not seen(conf)
    assert (
        len(process.stderr.splitlines()) == 3
        and "lune_sol" in process.stderr
        and "Traceback" not in process.stderr
    )


def test_errors_of_a_run_have_no_traceback_and_distinct_exit_codes(conf):
    process = script(conf, "prompt=fail")
    assert process.returncode == 1
    assert process.stderr.splitlines() == [
        "the cache is old",
        "  where: here",
        "  do:    rebuild it",
    ]
    assert "Traceback" in script(conf, "prompt=fail", TINYFLUX_DEBUG="1").stderr
    assert script(conf, "prompt=code", "steps=3").returncode == 3
    bug = script(conf, "prompt=bug", MY_TOKEN="s3cret-value-0123")
    assert bug.returncode == 1 and "RuntimeError: a bug with ***" in bug.stderr
    assert "s3cret-value-0123" not in bug.stderr + bug.stdout


@pytest.mark.parametrize(
    "number", [errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT]
)
def test_missing_permissions_and_a_full_disk_are_reported_with_file_and_cure(conf, number):
    process = script(conf, "prompt=errno", f"steps={number}")
    assert process.returncode == 1 and "Traceback" not in process.stderr
    what, where, cure = process.stderr.splitlines()
    assert "manifest.json" in what and where.endswith("/photos/cache") and "paths.root=" in cure


def test_a_failing_sweep_job_is_named_and_the_remaining_jobs_run(conf):
    process = script(conf, "-m", 'prompt=choice("fail","fine")')
    assert process.returncode == 1
    assert process.stderr.count("the cache is old") == 1 and "Traceback" not in process.stderr
    assert [c["prompt"] for c in seen(conf)] == ["fine"]


def test_help_and_cfg_print_and_exit(conf):
    process = script(conf, "--cfg", "job", "prompt=a, b")
    assert process.returncode == 0 and "prompt: a, b" in process.stdout
    assert script(conf, "--help").returncode == 0
    assert script(conf, "--cfg", "nonsense").returncode == 2
