"""Whoever resumes asks whether the samples are the same."""

import pytest

from tinyflux_pl.core.errors import ConfigError


def test_a_run_asks_whether_its_checkpoint_was_trained_on_the_same_samples():
    """The question is of no use unless whoever resumes puts it."""
    from types import SimpleNamespace

    from tinyflux_pl.app.training_run import Fitting

    resumed = SimpleNamespace(config={"caches": {"shapes": "then"}}, path="outputs/x/checkpoints/step_0000010")
    fitting = SimpleNamespace(resumed=resumed, config={"resume_changed": False}, _caches=lambda: {"shapes": "now"})
    with pytest.raises(ConfigError, match="other samples than are now in shapes"):
        Fitting._resume(fitting)
    assert Fitting._resume(SimpleNamespace(resumed=None)) == []
