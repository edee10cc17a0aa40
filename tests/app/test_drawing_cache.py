"""The step cache from the command line: calibrated, bound to its weights, measured, repeatable."""

import json
from types import SimpleNamespace

import pytest

from tests.app.test_from_image import again, draw
from tinyflux_pl.app.drawing.drawing_cache import identity
from tinyflux_pl.core.errors import CheckpointMismatch, ConfigError

LINE = (
    "model=flux1_schnell",
    "simulate=true",
    "prompt=red",
    "sampler.steps=12",
    "height=32",
    "width=32",
)


def test_a_calibration_is_bound_to_its_weights_and_its_images_reproduce(tmp_path, capsys):
    file = tmp_path / "teacache.json"
    draw(tmp_path, *LINE, f"cache.calibrate='{file}'")
    assert "fitted to 11 pairs" in capsys.readouterr().out
    calibration = json.loads(file.read_text())
    assert len(calibration["coefficients"]) == 5 and calibration["steps"] == 12
    use = ("cache.kind=teacache", f"cache.coefficients='{file}'", "cache.threshold=100")
    (picture,) = draw(tmp_path, *LINE, *use, "cache.measure=true")
    out = capsys.readouterr().out
    assert "67% of 12 forward passes" in out and "dB to the pictures without" in out
    again(tmp_path, picture, capsys)
    with pytest.raises(CheckpointMismatch, match="other weights"):
        draw(tmp_path, "model=flux2_klein_4b", *LINE[1:], *use)


def test_a_calibration_belongs_to_the_adapters_and_their_scales_too():
    origin = {"checkpoint": "ab12", "weights": "averaged"}
    adapter = {"name": "file", "content": "cd34", "layout": "peft"}
    added = [[], [{**adapter, "scale": 1.0}], [{**adapter, "scale": 0.5}]]
    pipelines = [SimpleNamespace(origin={**origin, "lora": lora}) for lora in added]
    assert len({identity(pipeline) for pipeline in pipelines}) == 3
    assert identity(pipelines[0]) == identity(SimpleNamespace(origin=origin))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (("cache.kind=first_block", "sampler.steps=9"), "9 steps"),
        (("cache.kind=teacache",), "fitted to this checkpoint"),
        (("cache.kind=first_block", "cache.calibrate=x.json"), "computes every step"),
        (("cache.kind=first_block", "cache.coefficients=x.json"), "only TeaCache"),
        (("cache.measure=true",), "no cache to measure"),
        (("cache.kind=teacache", "cache.coefficients=missing.json"), "no such calibration"),
    ],
)
def test_an_inapplicable_step_cache_is_refused(tmp_path, line, says):
    with pytest.raises(ConfigError, match=says):
        draw(tmp_path, *LINE, *line)
