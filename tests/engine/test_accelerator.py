"""Detection of a machine's accelerator, and the error without one."""

import pytest
import torch

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.engine import accelerator, peak_memory


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(True, True, "gpu"), (False, True, "mps"), (False, False, "cpu")]
)
def test_the_available_accelerator_is_chosen(monkeypatch, cuda, mps, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert accelerator.detect() == expected
    assert accelerator.device_of("auto") == {"gpu": "cuda", "mps": "mps", "cpu": "cpu"}[expected]


@pytest.mark.parametrize("name", ["gpu", "cuda", "mps"])
def test_an_unavailable_accelerator_is_refused(monkeypatch, name):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"no usable GPU|no Apple GPU"):
        accelerator.describe(name)


def test_a_gpu_is_described_by_its_name_and_memory(monkeypatch):
    class Properties:
        total_memory = 12 * 2**30

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: Properties)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A card")
    description = accelerator.describe("gpu")
    assert (description.name, description.total) == ("A card", 12 * 2**30)


def test_cpu_memory_is_bounded_by_the_control_group(monkeypatch):
    monkeypatch.setattr(peak_memory, "_group_limits", lambda: [(2**30, 2**20), (2**40, 2**35)])
    assert peak_memory.total_bytes("cpu") == 2**30
    assert peak_memory.available_bytes("cpu") == 2**20
