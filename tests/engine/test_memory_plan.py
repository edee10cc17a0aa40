"""Memory plans: counts by hand, the meta device, and predictions against live bytes."""

import pytest
import torch
from torch import nn

from tinyflux_pl.core.errors import MemoryPlanError
from tinyflux_pl.engine.activations import activations
from tinyflux_pl.engine.block_sizes import BlockSizes
from tinyflux_pl.engine.live_bytes import Growth, LiveBytes, growth, storage_bytes
from tinyflux_pl.engine.memory_plan import MemoryPlan, Stage, training, training_state
from tinyflux_pl.engine.placement import RESIDENT, Needs, planned
from tinyflux_pl.training.optimizers import MuonAdamW, adamw

TOLERANCE = 0.01  # of the predicted activations, against tensors counted at the full size


class Net(nn.Module):
    def __init__(self, width=64):
        super().__init__()
        self.first = nn.Linear(16, width)
        self.blocks = nn.ModuleList(
            nn.ModuleDict({"mlp": nn.Linear(width, width)}) for _ in range(3)
        )
        self.last = nn.Linear(width, 16)
        self.frozen = nn.Linear(16, 16).requires_grad_(False)
        self.register_buffer("table", torch.zeros(100))

    def forward(self, x):
        x = self.first(self.frozen(x))
        for block in self.blocks:
            x = x + torch.nn.functional.gelu(block["mlp"](x))
        return self.last(x)


def step(net, optimizer, batch, device="cpu"):
    # what a loop over samples adds is not linear in the batch, as in this project's noise
    x = torch.stack([torch.ones(128, 16, device=device) for _ in range(batch)])
    loss = net(x).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def gradients(net):
    return [p.grad for p in net.parameters()]


@pytest.mark.parametrize("make", [MuonAdamW, adamw])
def test_predicted_training_state_equals_the_bytes_of_its_tensors(make):
    net = Net()
    optimizer = make(net)
    step(net, optimizer, 2)
    with torch.device("meta"):
        outline = Net()
        planned = training_state(outline, make(outline).param_groups)
    kept = [
        s
        for s in (*optimizer.state.values(), *getattr(optimizer, "muon", optimizer).state.values())
    ]
    kept += list(optimizer.adamw.state.values()) if hasattr(optimizer, "adamw") else []
    moments = [t for state in kept for t in state.values() if torch.is_tensor(t) and t.numel() > 1]
    assert planned.weights == storage_bytes(list(net.parameters()), list(net.buffers()))
    assert planned.gradients == storage_bytes(gradients(net))
    assert planned.optimizer == storage_bytes(moments)
    assert planned.averages == sum(4 * p.numel() for p in net.parameters() if p.requires_grad)
    assert training_state(net, optimizer.param_groups, averaged=False).averages == 0
    assert training_state(net, optimizer.param_groups, ranks=2).gradients == 2 * planned.gradients


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_live_bytes_count_the_tensors_kept_for_backward(device):
    net, x = Net().to(device), torch.ones(8, 128, 16, device=device)
    with LiveBytes() as count:
        out = net(x)
        between = count.live
        del out
    # kept: the inputs of every trained linear, and of GELU; and the answer itself. GELU's own
    # answers are gone.
    assert between == 8 * 128 * 4 * (16 + 64 + 3 * (64 + 64) + 16) and count.live == 0


def test_live_bytes_ignore_views_and_existing_tensors():
    old, other = torch.ones(1000), torch.ones(1000)
    with LiveBytes(before=[old]) as count:
        view, same = old[:10], old.add_(1)
        assert other[:10].add_(1).shape == (10,)
        assert count.live == 0
        new = torch.ones(10)
        assert count.live == new.nbytes
        del old, view, same
        assert count.live == new.nbytes - 4000
    assert storage_bytes([new, new[:5], new.view(2, 5)]) == 40


@pytest.mark.parametrize("make", [MuonAdamW, adamw])
def test_a_step_is_predicted_from_one_sample_and_two(make):
    net = Net(128)
    optimizer = make(net)
    step(net, optimizer, 1)
    histories = {}
    for batch in (1, 2, 32):
        with LiveBytes(before=gradients(net)) as count:
            step(net, optimizer, batch)
        histories[batch] = count.history
    predicted = Growth(histories[1], histories[2]).at(32)
    assert predicted == pytest.approx(max(live for _, live in histories[32]), rel=TOLERANCE)
    assert len(histories[1]) != len(histories[2])  # the loop over samples was really met


def test_the_peak_may_move_to_another_operation_at_full_size():
    # at one sample the constant part is the most that is alive, at many the part that grows
    def work(batch):
        fixed = torch.ones(10_000)
        del fixed
        return torch.ones(batch, 1000)

    assert growth(work, 64).at(1) == 40_000
    assert growth(work, 64).at(64) == 256_000
    assert growth(work, 1).at(1) == 40_000  # two samples are never tried where there is one


def test_a_training_plan_lists_its_stages_and_the_largest():
    net = Net()
    state = training_state(net, adamw(net).param_groups)
    plan = training(state, {"step": 5000, "validation": 2000}, host=True)
    stages = {stage.name: stage.total for stage in plan.stages}
    assert stages["step"] == state.total + 5000
    assert stages["validation"] == state.total + 2000 + state.trained
    assert stages["save"] == state.total + state.snapshot
    assert state.weights > state.trained  # what is frozen is held once
    assert state.snapshot == state.weights + state.optimizer + state.averages
    assert plan.worst(host=True).name == "save"
    with_preview = training(state, {"step": 5000}, host=False)
    assert (
        with_preview.worst(host=True).total == state.snapshot
        and with_preview.worst().name == "step"
    )


def test_the_error_for_too_little_memory_names_the_largest_parts():
    plan = MemoryPlan((Stage("step", {"weights": 3 << 30, "activations": 5 << 30}),))
    plan.require(5 << 30, host=False, there=3 << 30, where="hardware", cure="less")
    with pytest.raises(MemoryPlanError) as caught:
        plan.require((5 << 30) - 1, host=False, there=3 << 30, where="hardware", cure="less")
    assert "'step' needs 8.00 GiB (activations 5.00 GiB, weights 3.00 GiB)" in caught.value.what
    assert caught.value.cure == "less"


def test_the_inference_plan_counts_resident_parts_and_frees_sequential_encoders():
    text = {"t5": BlockSizes(9_000), "clip": BlockSizes(200)}
    kept = planned(RESIDENT, Needs(BlockSizes(24_000), text, False, 300, 500, 3_000), host=True)
    assert [(s.name, s.total) for s in kept.stages] == [
        ("text", 33_200),
        ("denoise", 33_700),
        ("decode", 36_500),
    ]
    turns = planned(RESIDENT, Needs(BlockSizes(24_000), text, True, 300, 500, 3_000), host=True)
    assert [s.total for s in turns.stages] == [33_000, 24_500, 27_300]
    with pytest.raises(MemoryPlanError, match="'text' needs"):
        turns.require(30_000, host=True, where="here", cure="less")


@pytest.mark.parametrize("masked", [False, True])
def test_attention_memory_on_the_meta_device_is_that_of_a_fused_kernel(masked):
    def attend(device):
        query, key = (torch.zeros(2, 4, n, 16, device=device) for n in (64, 2048))
        mask = torch.ones(64, 2048, dtype=torch.bool, device=device) if masked else None
        return torch.nn.functional.scaled_dot_product_attention(
            query, key, value=key, attn_mask=mask
        ).square()

    with LiveBytes() as count:
        attend("cpu")
    really = max(live for _, live in count.history)
    planned = activations(lambda: attend("meta"))
    scores = 2 * 4 * 64 * 2048 * 4
    assert planned == pytest.approx(really, rel=0.02) and scores > 0.5 * planned
