"""EMA arithmetic: fp32 whatever the weights are, and the three decays."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.diffusion import averaging
from tinyflux_pl.diffusion.averaging import decay_at, lerp_


def test_a_slow_average_of_bf16_weights_still_moves():
    average, weight = torch.ones(3), torch.full((3,), 2.0, dtype=torch.bfloat16)
    for _ in range(300):
        lerp_([average], [weight], 0.9999)
    torch.testing.assert_close(average, torch.full((3,), 2 - 0.9999**300), rtol=1e-4, atol=1e-4)


def test_an_average_in_bf16_is_refused():
    with pytest.raises(ConfigError, match="fp32"):
        lerp_([torch.ones(1, dtype=torch.bfloat16)], [torch.ones(1)], 0.9)


def test_lists_of_different_length_are_an_error():
    with pytest.raises(ValueError):
        lerp_([torch.ones(1)], [], 0.9)


def test_averages_carry_no_gradient():
    average, weight = torch.ones(2), torch.zeros(2, requires_grad=True)
    lerp_([average], [weight], 0.5)
    assert not average.requires_grad and average.tolist() == [0.5, 0.5]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_never_enter_any_average(bad):
    averages = [torch.tensor([-0.0, 2.0]), torch.tensor([3.0])]
    lerp_(averages, [torch.tensor([1.0, 1.0]), torch.tensor([bad])], 0.5)
    assert [a.tolist() for a in averages] == [[-0.0, 2.0], [3.0]] and averages[0][0].signbit()


def test_a_skipped_step_leaves_every_average_bit_equal():
    average, value = torch.tensor([-0.0, 0.1]), torch.tensor([1.0, 0.7])
    lerp_([average], [value], 0.9, taken=torch.tensor(False))
    assert torch.equal(average, torch.tensor([0.0, 0.1])) and average[0].signbit()
    lerp_([average], [value], 0.9, taken=torch.tensor(True))
    assert torch.allclose(average, torch.tensor([0.1, 0.16]))


def many(count, device="cpu"):
    """Averages and weights of some sizes and two types."""
    types = [torch.float32] * count + [torch.bfloat16] * count
    shapes = [(3, 4), (7,), (), (2, 3, 2)]
    values = [torch.randn(shapes[i % 4]).to(kind).to(device) for i, kind in enumerate(types)]
    return [torch.randn(value.shape, device=device) for value in values], values


@pytest.mark.parametrize("decay", [0.1, 0.9])
def test_averages_updated_in_chunks_equal_those_updated_one_by_one(monkeypatch, decay):
    averages, values = many(20)
    averages[3][0, 0, 0] = -0.0
    alone, joint = ([average.clone() for average in averages] for _ in range(2))
    lots = averaging._chunks(list(zip(alone, values, strict=True)))
    assert max(map(len, lots)) == 1, "on a CPU, to the bit as it was"
    lerp_(alone, values, decay)
    monkeypatch.setattr(averaging, "_chunks", lambda pairs: [pairs[:20], pairs[20:]])
    lerp_(joint, values, decay, taken=torch.tensor(True))
    torch.testing.assert_close(joint, alone, rtol=1e-6, atol=1e-6)
    assert not torch.equal(joint[3], averages[3])
    kept = [average.clone() for average in averages]
    lerp_(kept, values, decay, taken=torch.tensor(False))
    values[-1].fill_(float("nan"))
    lerp_(kept, values, decay)
    assert (
        all(torch.equal(one, other) for one, other in zip(kept, averages, strict=True))
        and kept[3][0, 0, 0].signbit()
    )


def test_the_number_of_kernels_does_not_grow_with_the_number_of_tensors(monkeypatch):
    def launches(count):
        with Launches() as seen:
            lerp_(*many(count, "meta"), 0.9)
        return len(seen.names)

    few = launches(3)
    assert launches(100) == few
    monkeypatch.setattr(averaging, "CHUNK_BYTES", 2**9)
    assert few < launches(100) < 100, "in lots of so many bytes"


class Launches(TorchDispatchMode):
    """Names of the executed operations, except views."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), named=None):
        name = function.name().split("::")[1].split(".")[0]
        if not any(
            word in name
            for word in ("view", "slice", "detach", "alias", "empty", "rand", "normal", "_to_copy")
        ):
            self.names.append(name)
        return function(*args, **(named or {}))


def test_decay_schedules_have_their_documented_values():
    assert decay_at(0, 0.999) == 0.999
    assert (
        decay_at(0, 0.999, "warmup") == pytest.approx(0.1)
        and decay_at(10**6, 0.999, "warmup") == 0.999
    )
    assert decay_at(0, 0.999, "power") == 0.0, "the first power average is the weights themselves"
    assert decay_at(99, 0.999, "power", power=1.0) == pytest.approx(0.99**2)
    with pytest.raises(ConfigError, match="warmup"):
        decay_at(0, 0.9, "linear")
