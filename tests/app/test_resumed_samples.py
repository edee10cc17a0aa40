"""Resuming compares the cached samples with those of the checkpoint."""

import pytest

from tinyflux_pl.core.errors import ConfigError


def test_a_resumed_run_compares_its_samples_with_the_checkpoint(monkeypatch):
    """The comparison is useless unless the resuming code calls it."""
    from types import SimpleNamespace

    from tinyflux_pl.app import run
    from tinyflux_pl.app.fitting import training_run

    resumed = SimpleNamespace(
        config={"caches": {"shapes": "then"}}, path="outputs/x/checkpoints/step_0000010"
    )
    parts = SimpleNamespace(config=SimpleNamespace(resume_changed=False))
    monkeypatch.setattr(training_run, "cache_fingerprints", lambda _: {"shapes": "now"})
    with pytest.raises(ConfigError, match="other samples than are now in shapes"):
        run.assemble(parts, [], resumed)
