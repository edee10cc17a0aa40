"""The objective: what it asks of the network, and that nothing leaks a dropped prompt."""

import pytest
import torch

from tests.pretended_gpu import PretendedGPU
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.specs import LatentSpec, TextSpec
from tinyflux_pl.core.types import Batch, Prediction, TextEmbeddings
from tinyflux_pl.denoisers.tinyflux import build
from tinyflux_pl.diffusion.paths import LinearPath, VPPath
from tinyflux_pl.diffusion.timesteps import LogitNormal, Uniform
from tinyflux_pl.experts import lune, sol
from tinyflux_pl.objectives.flow import FlowObjective

NULL = TextEmbeddings(
    torch.zeros(1, 1, 4), torch.ones(1, 1, dtype=torch.bool), torch.full((1, 4), -7.0)
)


class Spy(torch.nn.Module):
    """A denoiser that keeps what it was given and answers zero, or the truth."""

    name, prediction, patch_size = "spy", "velocity", 1

    def __init__(self, path=None, prediction="velocity"):
        super().__init__()
        self.path, self.prediction = path or LinearPath(), prediction

    def forward(self, x_t, t, cond):
        self.seen = (x_t, t, cond)
        return Prediction(torch.zeros_like(x_t), {"vec": torch.zeros(len(t), 3)})


class Expert:
    name = "lune"
    columns = {"features": "vec"}  # noqa: RUF012

    def __init__(self, dropout=0.0):
        self.dropout = dropout

    def ports(self, buckets, t):
        return {"vec": buckets["lune.features"].mean(1)}

    def losses(self, heads, targets, present):
        each = (heads["vec"] - targets["vec"]).square().mean(1) * present
        return each.sum() / present.sum().clamp(min=1)

    def weight_at(self, step):
        return 0.5

    def dropout_at(self, step):
        return self.dropout


def make_batch(n=64, experts=True, masks=None):
    g = torch.Generator().manual_seed(0)
    text = TextEmbeddings(torch.ones(n, 3, 4), torch.ones(n, 3, dtype=torch.bool), torch.ones(n, 4))
    return Batch(
        latents=torch.randn(n, 2, 4, 4, generator=g),
        text=text,
        sample_ids=torch.arange(n) + 1000,
        dataset_ids=torch.zeros(n, dtype=torch.long),
        captions=["x"] * n,
        experts={"lune.features": torch.ones(n, 10, 3)} if experts else {},
        expert_present={"lune": torch.arange(n) % 2 == 0} if experts else {},
        masks=masks,
    )


def select(batch, index):
    text = batch.text.select(index)
    return Batch(
        batch.latents[index],
        text,
        batch.sample_ids[index],
        batch.dataset_ids[index],
        [batch.captions[i] for i in index.tolist()],
        {k: v[index] for k, v in batch.experts.items()},
        {k: v[index] for k, v in batch.expert_present.items()},
    )


def test_random_draws_of_a_sample_do_not_depend_on_its_batch():
    objective = FlowObjective(Uniform(), NULL, [Expert(0.5)], text_dropout=0.5)
    batch, spy = make_batch(), Spy()
    batched = objective.draw(spy, batch, step=3)
    index = torch.tensor([5, 2, 40])
    part = objective.draw(spy, select(batch, index), step=3)
    assert torch.equal(batched.t[index], part.t)
    assert torch.equal(batched.noise[index], part.noise)
    assert torch.equal(batched.cond.port_mask["vec"][index], part.cond.port_mask["vec"])
    assert torch.equal(batched.cond.text.pooled[index], part.cond.text.pooled)
    assert not torch.equal(objective.draw(spy, batch, step=4).noise, batched.noise)


@pytest.mark.parametrize(("patch", "tokens"), [(1, 16), (2, 4)])
def test_times_are_drawn_for_the_network_s_own_number_of_tokens(patch, tokens):
    calls = []

    def timesteps(u, path, tokens):
        calls.append(tokens)
        return u

    spy = Spy()
    spy.patch_size = patch
    FlowObjective(timesteps, NULL).draw(spy, make_batch(2, experts=False), 0)
    assert calls == [tokens]


def test_draws_for_a_gpu_never_synchronise_and_copy_the_null_text_once():
    objective = FlowObjective(Uniform(), NULL, [Expert(0.5)], text_dropout=0.5)
    batch, spy = make_batch(), Spy()
    here = objective.draw(spy, batch, 3)
    with PretendedGPU() as gpu:
        moved, copies = batch.to("cuda"), []
        for step in (3, 4, 3):
            before = gpu.sent
            there = objective.draw(spy, moved, step)
            copies.append(gpu.sent - before)
        assert there.noise.device.type == there.t.device.type == "cuda"
    assert gpu.waited == 0
    assert copies == [4 + 3, 4, 4], "t, noise and two dice; at first the parts of the null text"
    assert torch.equal(here.noise, there.noise) and torch.equal(here.t, there.t)
    assert (
        torch.equal(here.cond.text.pooled, there.cond.text.pooled) and objective.null_text is NULL
    )


@pytest.mark.parametrize(
    "path", [LinearPath(), LinearPath(noise_at=1), VPPath()], ids=["to_data", "to_noise", "vp"]
)
def test_a_training_step_never_synchronises_with_the_device(path):
    """Values on the meta device cannot be read: any synchronisation would fail."""
    sizes = {
        "hidden_size": 32,
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "axes_dims_rope": (4, 6, 6),
    }
    depth = {"num_double_layers": 1, "num_single_layers": 1, "patch_size": 2}
    with torch.device("meta"):
        net = build(
            LatentSpec(2, 2), TextSpec(4, 3, 4), path, lune_dim=3, sol=True, **sizes, **depth
        )
    cached = {"lune.features": (3,), "sol.stats": (4,), "sol.spatial": (8, 8)}
    experts = {name: torch.rand(4, 10, *shape) for name, shape in cached.items()}
    present = {name: torch.ones(4, dtype=torch.bool) for name in ("lune", "sol")}
    options = {
        **vars(make_batch(4, masks=torch.ones(4, 4, 4))),
        "experts": experts,
        "expert_present": present,
    }
    objective = FlowObjective(
        LogitNormal(), NULL, [lune.Lune(3), sol.Sol()], map_weighting=True, weighting="min_snr"
    )
    terms = objective.loss(net, Batch(**options).to("meta"), 3)
    torch.stack(list(terms.values())).sum().backward()
    assert terms.keys() == {"flow", "lune", "sol"} and all(term.is_meta for term in terms.values())


def test_dropping_a_prompt_also_drops_its_expert_features():
    objective = FlowObjective(Uniform(), NULL, [Expert(0.0)], text_dropout=0.5)
    draw = objective.draw(Spy(), make_batch(256), step=0)
    dropped = draw.cond.text.pooled[:, 0] == -7.0
    assert 90 < int(dropped.sum()) < 166
    assert not draw.cond.port_mask["vec"][dropped].any()
    present = torch.arange(256) % 2 == 0
    assert torch.equal(draw.cond.port_mask["vec"], present & ~dropped)


def test_a_source_without_an_expert_contributes_nothing_to_its_loss():
    batch = make_batch(8)
    absent = Batch(**{**vars(batch), "expert_present": {"lune": torch.zeros(8, dtype=torch.bool)}})
    objective = FlowObjective(Uniform(), NULL, [Expert()], text_dropout=0.0)
    assert objective.loss(Spy(), batch, 0)["lune"] == pytest.approx(0.5)
    assert objective.loss(Spy(), absent, 0)["lune"] == 0.0


@pytest.mark.parametrize(
    "path", [LinearPath(), LinearPath(noise_at=1), VPPath()], ids=["to_data", "to_noise", "vp"]
)
@pytest.mark.parametrize("prediction", ["velocity", "epsilon", "x0", "v"])
def test_an_exact_prediction_has_zero_loss(path, prediction):
    from tinyflux_pl.diffusion import prediction as algebra

    objective, batch = (
        FlowObjective(Uniform(), NULL, text_dropout=0.0),
        make_batch(8, experts=False),
    )
    spy = Spy(path, prediction)
    draw = objective.draw(spy, batch, 0)
    truth = algebra.target(prediction, batch.latents, draw.noise, draw.t, path)
    spy.forward = lambda x_t, t, cond: Prediction(truth)
    _, per_sample = objective.regress(spy, batch, draw)
    assert per_sample.abs().max() < 1e-9


def test_masked_foreground_weighs_four_times_the_background():
    masks = torch.zeros(8, 4, 4)
    masks[:4] = 1.0
    objective = FlowObjective(Uniform(), NULL, text_dropout=0.0)
    spy = Spy()
    batch = make_batch(8, experts=False, masks=masks)
    draw = objective.draw(spy, batch, 0)
    _, weighted = objective.regress(spy, batch, draw)
    _, plain = objective.regress(spy, make_batch(8, experts=False), draw)
    assert torch.allclose(weighted[:4], 2.0 * plain[:4]) and torch.allclose(
        weighted[4:], 0.5 * plain[4:]
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("text_dropout", 3),
        ("text_dropout", -0.1),
        ("huber_delta", 0),
        ("huber_delta", float("nan")),
        ("error", "l3"),
    ],
)
def test_an_invalid_option_is_refused_by_its_key(key, value):
    with pytest.raises(ConfigError) as caught:
        FlowObjective(Uniform(), NULL, **{key: value})
    assert caught.value.where == f"objective.{key}" and caught.value.cure
