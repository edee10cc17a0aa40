"""Fault 14: a teacher without captured features or with NaN is an error; nothing is cached."""

import pytest
import torch

from tests.faults import caching
from tinyflux_pl.core import files
from tinyflux_pl.core.errors import CaptureError
from tinyflux_pl.core.types import Prediction
from tinyflux_pl.denoisers.unet import UNetDenoiser


@pytest.fixture
def world(tmp_path):
    return caching.make(tmp_path / "world", pretrained=False)


def silent(monkeypatch, root, name):
    """A forward pass that reaches no block, as compiled or replaced networks look to hooks."""
    monkeypatch.setattr(UNetDenoiser, "forward", lambda self, x_t, t, cond: Prediction(x_t))


def poisoned(monkeypatch, root, name):
    """One weight of the teacher is NaN."""
    file = root / "teachers" / f"{name}.safetensors"
    weights = caching.read(file)
    weights["unet.conv_in.bias"][0] = torch.nan
    files.write_tensors(file, weights)
    caching.alter(file, 0.0)


@pytest.mark.parametrize(
    ("fault", "says"), [(silent, "did not run|no self-attention ran"), (poisoned, "not finite")]
)
def test_a_teacher_without_output_is_an_error_and_nothing_is_cached(
    world, tmp_path, monkeypatch, fault, says, figure
):
    passed = 0
    for name in ("lune", "sol"):
        root = caching.copied(world, tmp_path / name)
        with monkeypatch.context() as patch:
            fault(patch, root, name)
            with pytest.raises(CaptureError, match=says) as caught:
                caching.extract(root, f"experts={name}", pretrained=False)
        cached = list((root / "cache").rglob(f"{name}/shard_*"))
        assert caught.value.cure
        passed += not cached
    figure(14, f"a {fault.__name__} teacher raises, and nothing is cached", passed, 2)


def test_features_of_a_working_teacher_are_not_constant(world):
    caching.extract(world, pretrained=False)
    store = caching.store(world)
    for key in (key for group in ("lune", "sol") for key in store.layout(group)):
        rows = store.gather(key, range(len(store))).float()
        assert rows.isfinite().all() and rows.flatten(1).std(0).max() > 0, key
