"""The kernel of a released network's attentions is the one that was named, or refused."""

import warnings

import pytest
import torch

from tests import releases_flux1
from tests.denoisers.test_released import load
from tinyflux_pl.core.errors import ConfigError, MissingDependency
from tinyflux_pl.denoisers.attention_backend import require_usable


@pytest.fixture
def folder(tmp_path):
    releases_flux1.transformer().save_pretrained(tmp_path / "transformer")
    return tmp_path


@torch.no_grad()
def test_every_attention_processor_uses_the_configured_backend(folder):
    from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = load(folder, attention_backend="_native_math")
    processors = {
        m.processor._attention_backend for m in model.modules() if hasattr(m, "processor")
    }
    assert processors == {AttentionBackendName._NATIVE_MATH}
    assert _AttentionBackendRegistry.get_active_backend()[0] == AttentionBackendName.NATIVE


def test_an_attention_kernel_is_tried_on_the_device_before_weights_are_read():
    require_usable("native", "cpu", torch.bfloat16)
    require_usable("_native_math", "cpu", torch.float32)
    with pytest.raises(
        ConfigError, match=r"_native_cudnn does not run on cpu[\s\S]*attention_backend=native"
    ):
        require_usable("_native_cudnn", "cpu", torch.float32)
    with pytest.raises(MissingDependency, match="xformers"):
        require_usable("xformers", "cpu", torch.float32)


@pytest.mark.parametrize(
    ("backend", "error", "says"),
    [
        ("natve", ConfigError, "did you mean 'native'"),
        ("flash_hub", ConfigError, "fetch and run code"),
        ("xformers", MissingDependency, "xformers"),
    ],
)
def test_an_unavailable_backend_is_refused(folder, backend, error, says):
    with pytest.raises(error, match=says):
        load(folder, attention_backend=backend)
