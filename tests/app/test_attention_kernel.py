"""The attention kernel that a model names is tried before a run that trains reads a weight."""

import pytest

from tests import releases_flux1
from tests.app.runs import SHAPES, run
from tinyflux_pl.app.hardware import require_attention_kernel
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.weights import load_release

MATH = {"attention_backend": "_native_math", "dtype": "float32"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return releases_flux1.flux1(tmp_path_factory.mktemp("release"), "schnell")


def test_an_unsupported_attention_kernel_is_refused_before_weights_are_read(
    folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(load_release, "fill", None)
    network = (
        "model=flux1_schnell",
        f"model.weights='{folder}'",
        "text.length=16",
        "codec=flux1",
        *SHAPES,
    )
    with pytest.raises(ConfigError, match=r"_native_cudnn does not train on cpu") as caught:
        run("train", tmp_path, *network, "model.attention_backend=_native_cudnn", "steps=1")
    assert caught.value.where == "model.attention_backend" and not (tmp_path / "cache").exists()


def test_a_kernel_without_gradient_is_refused_only_for_training(monkeypatch):
    from diffusers.models import attention_dispatch

    attend = attention_dispatch.dispatch_attention_fn
    monkeypatch.setattr(
        attention_dispatch, "dispatch_attention_fn", lambda *a, **k: attend(*a, **k).detach()
    )
    require_attention_kernel(MATH, "cpu")
    with pytest.raises(ConfigError, match="does not train"):
        require_attention_kernel(MATH, "cpu", "32-true")


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_kernel_with_gradient_is_accepted(precision):
    require_attention_kernel(MATH, "cpu", precision)


def test_a_network_without_kernel_choice_is_not_checked():
    require_attention_kernel({"hidden_size": 8}, "cpu", "32-true")
