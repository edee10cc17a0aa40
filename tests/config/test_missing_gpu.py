"""Hardware that is not here is refused before anything is written."""

import pytest

from tests.app.runs import run
from tests.config.test_accepted_values import SMALLEST
from tinyflux_pl.core.errors import ConfigError


def test_a_missing_gpu_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for task in ("train", "extract"):
        with pytest.raises(ConfigError, match="no usable GPU"):
            run(task, tmp_path, *SMALLEST, "hardware=gpu_12gb")
    assert not list(tmp_path.rglob("shard_*"))
