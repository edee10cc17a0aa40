"""Whoever resumes asks whether the samples are the same."""

import pytest

from tinyflux_pl.core.errors import ConfigError


def test_a_run_asks_whether_its_checkpoint_was_trained_on_the_same_samples(monkeypatch):
    """The question is of no use unless whoever resumes puts it."""
    from types import SimpleNamespace

    from tinyflux_pl.app import run, training_run

    resumed = SimpleNamespace(
        config={"caches": {"shapes": "then"}}, path="outputs/x/checkpoints/step_0000010"
    )
    parts = SimpleNamespace(config=SimpleNamespace(resume_changed=False))
    monkeypatch.setattr(training_run, "cache_fingerprints", lambda _: {"shapes": "now"})
    with pytest.raises(ConfigError, match="other samples than are now in shapes"):
        run.assemble(parts, [], resumed)
