"""Calibrated weights by command: fitted, bound to their weights, reported, repeatable."""

import pytest

from tests.app.runs import settings
from tests.app.test_from_image import draw, pixels
from tests.denoisers.test_conformance import SMALL
from tinyflux_pl.app.drawing import weight_calibration
from tinyflux_pl.app.memory import inference_memory
from tinyflux_pl.core.errors import CheckpointMismatch, ConfigError

LINE = ("simulate=true", "sampler.steps=2", "height=32", "width=32", "prompt=red")
SCHNELL = ("model=flux1_schnell", *LINE)
FORMAT = "engine.precision=int8_dynamic"


@pytest.mark.parametrize("method", ["smoothquant", "ptq4dit"])
def test_a_calibration_is_reported_bound_to_its_weights_and_drawn_with(method, tmp_path, capsys):
    file, report = tmp_path / "factors.safetensors", tmp_path / "layers.csv"
    fit = (f"engine.calibrate='{file}'", f"engine.balance={method}", f"engine.report='{report}'")
    (plain,) = draw(tmp_path, *SCHNELL)
    (calibrating,) = draw(tmp_path, *SCHNELL, FORMAT, *fit)
    out = capsys.readouterr().out
    assert "dB rounded to nearest" in out and f"dB with {method}" in out
    assert (pixels(plain) == pixels(calibrating)).all()
    draw(tmp_path, f"from_image='{calibrating}'")  # whose weights were not packed yet
    assert "the same picture, to the bit" in capsys.readouterr().out
    rows = report.read_text().splitlines()
    assert rows[0] == f"layer,nearest_db,{method}_db" and len(rows) > 4
    use = f"engine.calibration='{file}'"
    drawn = tmp_path / "drawn.csv"
    (picture,) = draw(tmp_path, *SCHNELL, FORMAT, use, f"engine.report='{drawn}'")
    assert "inputs divided in the layers before: 28, at run time: 12" in capsys.readouterr().out
    divided = [row.rpartition(",")[2] for row in drawn.read_text().splitlines()[1:]]
    assert all(cell == "at run time" or cell.startswith("in net.") for cell in divided)
    draw(tmp_path, f"from_image='{picture}'", use)
    assert "the same picture, to the bit" in capsys.readouterr().out
    with pytest.raises(CheckpointMismatch, match=r"(?s)calibration was.*engine\.calibration=FILE"):
        draw(tmp_path, f"from_image='{picture}'")
    with pytest.raises(CheckpointMismatch, match="other weights"):
        draw(tmp_path, "model=sd35_medium", *LINE, FORMAT, use)


@pytest.mark.parametrize(
    ("cache", "inputs"),
    [
        (("cache.kind=none",), 12),
        (("cache.kind=first_block",), 12),
        (("cache.kind=teacache", "cache.coefficients=[1,0,0,0,0]"), 7),
        (("cache.calibrate=x.json",), 7),
    ],
)
def test_inputs_that_teacache_measures_are_not_divided_in_the_layers_before(
    cache, inputs, tmp_path
):
    """Its coefficients belong to the input of the first block's attention as it is."""
    denoiser = SMALL["flux1"]()
    config = settings("generate", tmp_path, *SCHNELL, *cache)
    chosen = weight_calibration.foldable(denoiser, config.cache)
    assert len(chosen) == inputs
    first = [each for each in chosen if "net.transformer_blocks.0." in each.layers[0]]
    assert len(first) == (5 if inputs == 12 else 0)


def test_the_plan_of_a_calibration_counts_plain_weights(tmp_path):
    def bytes_of(*line):
        plan = inference_memory.plan(settings("generate", tmp_path, "model=sd35_medium", *line))
        return plan.parts[0].bytes

    assert bytes_of(FORMAT, "engine.calibrate=x.safetensors") == bytes_of() > bytes_of(FORMAT)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (("engine.calibrate=x.safetensors",), "no format"),
        (("engine.calibration=x.safetensors",), "no format"),
        ((FORMAT, "engine.calibration=missing.safetensors"), "no such calibration"),
        ((FORMAT, "engine.calibrate=a", "engine.calibration=b"), "plain weights"),
    ],
)
def test_an_inapplicable_calibration_is_refused(line, says, tmp_path):
    with pytest.raises(ConfigError, match=says):
        draw(tmp_path, *SCHNELL, *line)
