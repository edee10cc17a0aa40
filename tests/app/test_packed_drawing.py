"""Weights in fewer bits from the command line: drawn, planned, reported, repeatable, refused."""

import pytest

from tests.app.runs import settings
from tests.app.test_from_image import TRAINED, again, draw
from tinyflux_pl.app.memory import inference_memory
from tinyflux_pl.core.errors import ConfigError

LINE = ("prompt=red", "simulate=true", "sampler.steps=2", "height=32", "width=32")
MODELS = ("flux1_schnell", "flux2_klein_4b", "flux3", "sd35_medium", "sdxl", "tiny")


@pytest.mark.parametrize("model", MODELS)
def test_every_family_draws_with_packed_weights_and_repeats_its_image(model, tmp_path, capsys):
    report = tmp_path / "layers.csv"
    line = (f"model={model}", *LINE, "engine.precision=int8", f"engine.report='{report}'")
    (picture,) = draw(tmp_path, *line, *TRAINED.get(model, ()))
    assert "signal to noise of the weights" in capsys.readouterr().out
    rows = report.read_text().splitlines()
    assert rows[0].startswith("layer,format,bytes_before") and len(rows) > 4
    again(tmp_path, picture, capsys)


@pytest.mark.parametrize(("precision", "share"), [("fp8", 0.5), ("int8", 0.5), ("int4", 0.27)])
def test_the_plan_counts_packed_weights(precision, share, tmp_path):
    def bytes_of(*line):
        return inference_memory.plan(settings("generate", tmp_path, *line)).parts[0].bytes

    line = ("model=sd35_medium", "prompt=red")
    ratio = bytes_of(*line, f"engine.precision={precision}") / bytes_of(*line)
    assert share <= ratio < share + 0.05


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (("engine.report=layers.csv",), "fewer bits"),
        (("engine.precision=int8", "condition=notes.npz", "simulate=false"), "drawn resident"),
    ],
)
def test_inapplicable_formats_are_refused(line, says, tmp_path):
    with pytest.raises(ConfigError, match=says):
        draw(tmp_path, "model=flux1_schnell", *LINE, *line)
