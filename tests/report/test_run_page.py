"""The page of a run: complete, self-contained, escaped, and never a traceback."""

import json
import re

import pytest

from tests.report import folders
from tinyflux_pl.report import run_files, run_page
from tinyflux_pl.report.write import write_run_report

MAX_BYTES = 10 * 2**20


@pytest.fixture
def run(tmp_path):
    return folders.write_run(tmp_path / "demo")


def page(folder):
    return run_page.html(run_files.read(folder))


def test_a_finished_run_has_its_sections(run):
    html = write_run_report(run).read_text()
    keys = re.findall(r'<section id="(\w+)"', html)
    expected = ["samples", "curves", "times", "accuracy", "experts", "speed"]
    assert keys == [*expected, "commands", "configuration", "provenance"]
    assert len(re.findall(r'<a href="#', html)) == len(keys)
    assert "finished" in html and "2.44" in html and len(html) < MAX_BYTES


def test_nothing_is_loaded_from_elsewhere(run):
    html = page(run)
    sources = re.findall(r'(?:src|href|url|action|srcset)\s*=\s*"([^"]*)"', html)
    assert sources and all(s.startswith(("data:image/", "#")) for s in sources)
    assert not re.findall(r"@import|url\(|https?://(?!www\.w3\.org/2000/svg)", html)
    assert "default-src &#x27;none&#x27;" in html


def test_captions_and_overrides_are_escaped(run):
    html = page(run)
    assert html.count("<script>") == 1, "the page's own script alone"
    assert "alert(1)" in html and "<script>alert" not in html
    assert "&lt;script&gt;alert(2)" in html


def test_every_image_has_alternative_text(run):
    images = re.findall(r"<img [^>]*>", page(run))
    assert images and all(re.search(r'alt="[^"]+"', image) for image in images)


def test_ids_are_unique(run):
    ids = re.findall(r'\sid="([^"]*)"', page(run))
    assert len(ids) == len(set(ids))


def test_secrets_are_masked(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_" + "a1b2c3d4" * 4)
    leaked = {"note": "hf_" + "a1b2c3d4" * 4}
    folder = folders.write_run(tmp_path / "demo", config=leaked, finished=False)
    (folder / "train.log").write_text("login hf_" + "a1b2c3d4" * 4)
    assert "a1b2c3d4a1b2" not in page(folder)


def test_the_page_of_a_crashed_run_lists_missing_files_and_shows_its_log(tmp_path):
    folder = folders.write_run(tmp_path / "demo", finished=False)
    (folder / "train.log").write_text("loss exploded <b>here</b>\n")
    html = page(folder)
    assert "not finished" in html and "no results.json" in html and "no checkpoint" in html
    assert "loss exploded &lt;b&gt;here" in html


def test_the_page_of_an_empty_folder_states_what_is_missing(tmp_path):
    html = page(tmp_path)
    for reason in ("no config.json", "no results.json", "no metrics.csv", "no previews"):
        assert reason in html


def test_unreadable_files_are_named(tmp_path):
    folder = folders.write_run(tmp_path / "demo")
    (folder / "results.json").write_text("[1, 2]")
    (folder / "config.json").write_bytes(b"\xff\xfe")
    (folder / "csv" / "metrics.csv").write_bytes(b"\0\0")
    for sheet in (folder / "samples").iterdir():
        sheet.write_text("no picture")
    (folder / "checkpoints" / "step_1").mkdir(parents=True)
    (folder / "checkpoints" / "step_1" / "manifest.json").write_text("{}")
    html = page(folder)
    for reason in ("results.json cannot be read", "config.json cannot", "step_1 cannot be read"):
        assert reason in html


@pytest.mark.parametrize("value", [None, 7, "x", [], {}, [1], {"a": {"b": "nan"}}, True, -1e308])
@pytest.mark.parametrize("file", ["config.json", "results.json"])
def test_unexpected_value_types_do_not_break_the_page(tmp_path, file, value):
    folder = folders.write_run(tmp_path / "demo")
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(dict.fromkeys(content, value)))
    assert "</html>" in page(folder)


def test_nonfinite_values_are_marked(run):
    rows = [{"step": s, "train/loss": v} for s, v in ((1, 1.0), (2, float("nan")), (3, 0.5))]
    folders.write_csv(run, rows)
    assert '"gaps":[2]' in page(run)


def test_a_hundred_thousand_rows_make_a_small_page(run):
    path = run / "csv" / "metrics.csv"
    lines = "\n".join(f"{s},{1 / (s + 1)}" for s in range(100_000))
    path.write_text(f"step,train/loss\n{lines}\n")
    assert len(page(run)) < 400_000


def test_a_page_is_replaced_atomically(run):
    first = write_run_report(run)
    second = write_run_report(run)
    assert first == second and not list(run.glob(".report*"))


def test_metrics_of_a_user_have_their_charts(run):
    rows = [{"step": 1, "mine/<b>": 2.0}, {"step": 2, "mine/<b>": 3.0}]
    folders.write_csv(run, rows)
    html = page(run)
    assert "Other metrics" in html and "mine/&lt;b&gt;" in html


def test_changes_of_a_resumed_run_are_listed(run):
    config = json.loads((run / "config.json").read_text())
    later = {**config, "from_step": 50, "hardware": {"batch_size": 16, "accelerator": "cpu"}}
    (run / "config_1.json").write_text(json.dumps(later))
    html = page(run)
    assert "Changed when the run was resumed" in html and "start 2, from step 50" in html


def test_a_failing_analysis_does_not_break_the_page(run, monkeypatch):
    def broken(*_):
        raise AttributeError("another version")

    monkeypatch.setattr("tinyflux_pl.report.importance.compute", broken)
    assert "attention importance: another version" in page(run)
