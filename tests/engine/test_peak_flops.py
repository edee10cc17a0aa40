"""Peaks by the names that CUDA gives its devices; FLOPs of a step counted exactly."""

import pytest
import torch
from torch import nn

from tinyflux_pl.engine.peak_flops import count_flops, device_peak_flops, peak_flops


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA H200", 989.4),
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756.5),
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA A10G", 70.0),
        ("NVIDIA L40S", 362.1),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA A100-SXM4-40GB MIG 3g.20gb", None),
        ("NVIDIA A1000", None),
        ("Tesla V100-SXM2-16GB", None),
    ],
)
def test_peak_flops_are_those_of_the_device_or_unknown(name, tflops):
    expected = None if tflops is None else pytest.approx(tflops * 1e12)
    assert peak_flops(name, "bf16-mixed") == expected


def test_unlisted_precisions_and_devices_have_no_peak_flops():
    assert peak_flops("NVIDIA H200", "32-true") is None
    assert device_peak_flops("cpu", "bf16-mixed") is None


def test_flops_of_forward_and_backward_are_counted_on_the_meta_device():
    with torch.device("meta"):
        network = nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 4))
        x = torch.empty(5, 8)
    forward = 2 * 5 * (8 * 16 + 16 * 4)
    # gradients of both weights, and of the second layer's input
    backward = forward + 2 * 5 * 16 * 4
    assert count_flops(lambda: network(x).sum()) == forward + backward
