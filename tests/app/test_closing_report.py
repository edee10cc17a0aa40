"""A training run ends with its page, whatever becomes of the run; the page never costs the run."""

import json
import re

import pytest

from tests.app.runs import SMALLEST, run
from tinyflux_pl.app.reporting.closing_report import with_report
from tinyflux_pl.core.errors import ConfigError, DiskFull, NumericsError

SOL = ("experts=sol", "model.sol_hidden_dim=16")
QUICK = (*SMALLEST, "run=one", "data.evaluation_prompts=2", "data.sources.shapes.train.count=8")
QUICK += ("steps=2", "callbacks.preview.every_steps=1", "sampler.steps=1")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    root = tmp_path_factory.mktemp("finished")
    run("train", root, *QUICK, *SOL, "report=true")
    return root / "outputs" / "one"


def test_a_run_ends_with_an_html_report(finished):
    html = (finished / "report.html").read_text()
    keys = re.findall(r'<section id="(\w+)"', html)
    assert {"samples", "curves", "times", "experts", "attention", "provenance"} <= set(keys)
    assert "Not in this report" not in html, "nothing is missing from a run of today"
    assert html.count("data:image/png") > 20


def test_software_versions_of_the_run_are_recorded(finished):
    content = json.loads((finished / "environment.json").read_text())
    assert content["device"] == "cpu" and content["versions"]["torch"]


def test_a_report_that_cannot_be_written_is_one_log_line(tmp_path, monkeypatch, capsys):
    def full(folder, attention):
        raise DiskFull("no space to write report.html", where=str(folder))

    monkeypatch.setattr("tinyflux_pl.report.write.write_run_report", full)
    run("train", tmp_path, *QUICK, "experts=none", "report=true")
    printed = capsys.readouterr().out
    assert printed.count("no report was written: DiskFull: no space to write report.html\n") == 1
    assert (tmp_path / "outputs" / "one" / "results.json").is_file()


def test_a_failed_run_has_a_report_and_raises_its_error(tmp_path, monkeypatch):
    def broken(*_):
        raise NumericsError("the evaluation broke")

    monkeypatch.setattr("tinyflux_pl.app.fitting.final_evaluation.evaluate", broken)
    with pytest.raises(NumericsError, match="the evaluation broke"):
        run("train", tmp_path, *QUICK, "experts=none", "report=true")
    html = (tmp_path / "outputs" / "one" / "report.html").read_text()
    assert "not finished" in html and "attention importance: this run has no Sol" not in html


def test_report_false_writes_no_report(tmp_path):
    run("train", tmp_path, *QUICK, "experts=none", "report=false")
    assert not (tmp_path / "outputs" / "one" / "report.html").exists()


def test_a_refused_start_leaves_the_report_of_the_run_unchanged(finished):
    before = (finished / "report.html").stat().st_mtime_ns
    root = finished.parents[1]
    with pytest.raises(Exception, match="already"):
        run("train", root, *QUICK, *SOL, "report=true")
    assert (finished / "report.html").stat().st_mtime_ns == before


def test_a_start_that_is_refused_writes_no_report_though_another_process_began_one(tmp_path):
    @with_report
    def refused(config):
        (tmp_path / "config.json").write_text("{}")  # the other process has the folder by now
        raise ConfigError("this run is being trained by process 1")

    with pytest.raises(ConfigError, match="being trained"):
        refused({"run_dir": str(tmp_path), "report": True})
    assert not (tmp_path / "report.html").exists()
