"""Logged names find their charts."""

import pytest

from tinyflux_pl.core import metric_names
from tinyflux_pl.report import panels
from tinyflux_pl.report.curve import curve_of


@pytest.mark.parametrize(
    ("name", "key", "label"),
    [
        ("train/loss", "loss", "training"),
        ("validation/loss", "loss", "validation"),
        ("train/lune", "terms", "lune"),
        ("train/sol_weight", "weight", "sol"),
        ("train/gate_prior", "gate", "prior"),
        ("train/velocity_share", "velocity", "share of samples"),
        ("train/velocity_open_t_0.05", "velocity_open", "0.05"),
        ("train/gradient_norm", "norm", "Gradient norm"),
        ("train/gradient_norm_double_blocks", "module_norm", "double blocks"),
        ("train/learning_rate_0", "rate", "0"),
        ("train/data_wait_seconds", "wait", "Data wait"),
        ("train/peak_memory_bytes", "memory", "Peak memory"),
        ("validation/loss_t_0.1", "times", "0.1"),
        ("validation/seen_loss_t_0.1", "seen_times", "0.1"),
        ("preview/accuracy_all", "accuracy", "all"),
        ("validation/psnr", "psnr", "validation"),
        ("validation/seen_l1", "l1", "training samples"),
    ],
)
def test_every_metric_has_a_chart_and_a_title(name, key, label):
    panel = panels.panel_of(name)
    assert panel.key == key and panels.label(panel, name) == label


def test_every_scalar_that_a_run_logs_has_one_chart():
    for entry in metric_names.SCALARS:
        assert [entry in panel.entries for panel in panels.PANELS].count(True) == 1, entry.pattern


def test_a_metric_of_a_user_keeps_its_name():
    by_panel, rest = panels.group_by_panel({"mine/x": curve_of("mine/x", [1], [1.0])})
    assert by_panel == {} and list(rest) == ["mine/x"]
