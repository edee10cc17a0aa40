"""Inpainting inputs that the starting weights lack: `full` trains them, other methods refuse."""

import pytest
import torch

from tests.app.runs import settings
from tests.denoisers.test_conformance import SMALL
from tests.methods.matrix import METHODS
from tinyflux_pl.app.fitting import starting_point
from tinyflux_pl.checkpoints.start import start_from
from tinyflux_pl.core.errors import CheckpointMismatch, ConfigError
from tinyflux_pl.methods.registry import METHODS as CLASSES
from tinyflux_pl.methods.registry import build_method

ADAPTERS_OF_DATA = {"dreambooth": "lora", "dreambooth_full": "full"}
OPTIONS = {"textual_inversion": {"word": "zorp"}}
BASED = sorted(name for name, kind in CLASSES.items() if kind.needs_base)


def check(tmp_path, method, *words):
    """The check of a run's start, before anything is read."""
    config = settings("train", tmp_path, "model=flux2_klein_4b", "model.inpaint=true", *words)
    kind = ADAPTERS_OF_DATA.get(method, method)
    starting_point.check(config, build_method(kind, OPTIONS.get(kind, {})), "denoiser")


@pytest.mark.parametrize("method", BASED)
def test_a_base_without_an_input_for_holes_is_refused(tmp_path, method):
    with pytest.raises(ConfigError, match="no release has an inpainting input") as error:
        check(tmp_path, method, f"model.weights='{tmp_path}'")
    assert error.value.where == "model.inpaint" and "method=full" in error.value.cure


@pytest.mark.parametrize("method", BASED)
def test_a_run_that_may_have_trained_it_is_a_base(tmp_path, method):
    check(tmp_path, method, f"init='{tmp_path}'")


def test_full_trains_it_on_a_release(tmp_path):
    check(tmp_path, "full", f"model.weights='{tmp_path}'")


def test_every_method_of_the_matrix_is_one_of_these():
    kinds = {ADAPTERS_OF_DATA.get(method, method) for method in METHODS}
    assert kinds == {"full", *BASED}


@torch.no_grad()
def test_a_run_of_tinyflux_without_it_is_no_base():
    base = SMALL["tinyflux"]()
    with pytest.raises(CheckpointMismatch, match="inpaint_in"):
        start_from(base.with_inpaint(), base.state_dict(), "base", complete=True)
