"""Times the Bezier activation beside its plain formula, and counts the memory that each keeps.

    python -m benchmarks bezier [--threads 1] [--rounds 15] [--device cpu]

Rounds alternate (A B A B); figures are medians. Units are multiples of the output's size.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from tinyflux_pl.nets.bezier import BezierActivation

SHAPE = (4, 5 * 32, 64, 64)


def plain(x: Tensor) -> Tensor:
    """The formula as one would write it: sigmoid on t, silu on the control points."""
    t, p0, p1, p2, p3 = x.view(x.shape[0], -1, 5, *x.shape[2:]).unbind(2)
    t = torch.sigmoid(t)
    p0, p1, p2, p3 = (torch.nn.functional.silu(p) for p in (p0, p1, p2, p3))
    u = 1 - t
    return u**3 * p0 + 3 * u**2 * t * p1 + 3 * u * t**2 * p2 + t**3 * p3


def kept(function: Callable[[Tensor], Tensor], x: Tensor) -> float:
    """Bytes kept for the backward pass, in units of the output."""
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = function(x)
    return sum(storages.values()) / (out.numel() * out.element_size())


def seconds(function: Callable[[Tensor], Tensor], x: Tensor) -> float:
    """One forward and backward pass."""
    x.grad = None
    if x.is_cuda:
        torch.cuda.synchronize()
    started = time.perf_counter()
    function(x).sum().backward()
    if x.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started


def main(arguments: list[str]) -> int:
    """Print times, their ratio, and the memory kept."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks bezier")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    x = torch.randn(SHAPE, device=options.device, requires_grad=True)
    functions = {
        "plain formula": plain,
        "BezierActivation": BezierActivation("sigmoid", "silu"),
        "the same, planar": BezierActivation("sigmoid", "silu", planar=True),
    }
    for function in functions.values():
        seconds(function, x)  # compiles
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(options.rounds):
        for name, function in functions.items():
            times[name].append(seconds(function, x))
    first = statistics.median(times["plain formula"])
    print(f"{tuple(SHAPE)} on {options.device}, {options.threads} thread(s)")
    for name, function in functions.items():
        median = statistics.median(times[name])
        units = kept(function, x)
        print(f"{name:18} {median * 1e3:7.1f} ms  {first / median:4.1f} x  {units:4.1f} units kept")
    return 0
