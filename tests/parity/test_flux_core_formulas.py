"""Flux equals its formulas, written out again, for sizes and biases without a recording."""

import math

import pytest
import torch

from tinyflux_pl.nets.flux import Flux, FluxParams

BASE = dict(
    in_channels=4,
    out_channels=3,
    vec_in_dim=5,
    context_in_dim=7,
    hidden_size=32,
    mlp_ratio=2.0,
    num_heads=2,
)
BASE |= dict(
    depth=2,
    depth_single_blocks=2,
    axes_dim=[4, 6, 6],
    theta=10_000,
    qkv_bias=True,
    guidance_embed=False,
)


def silu(x):
    return x * torch.sigmoid(x)


def gelu(x):
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def normed(x, shift, scale):
    centred = x - x.mean(-1, keepdim=True)
    return (1 + scale[:, None]) * centred / (
        centred.square().mean(-1, keepdim=True) + 1e-6
    ).sqrt() + shift[:, None]


class Formulas:
    """The prediction from weights by their published names."""

    def __init__(self, params, weights):
        self.p, self.w = params, weights

    def linear(self, name, x):
        out = x @ self.w[f"{name}.weight"].T
        return out + self.w[f"{name}.bias"] if f"{name}.bias" in self.w else out

    def embedder(self, name, x):
        return self.linear(f"{name}.out_layer", silu(self.linear(f"{name}.in_layer", x)))

    def scalar(self, name, value):
        angle = 1000 * value[:, None] * torch.exp(-math.log(1e4) * torch.arange(128) / 128)
        return self.embedder(name, torch.cat((angle.cos(), angle.sin()), -1))

    def heads(self, name, qkv):
        query, key, value = qkv.unflatten(-1, (3, self.p.num_heads, -1)).permute(2, 0, 3, 1, 4)

        def unit(x, part):
            return (
                x
                / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()
                * self.w[f"{name}.{part}_norm.scale"]
            )

        return unit(query, "query"), unit(key, "key"), value

    def turned(self, x):
        evens, odds = x[..., 0::2], x[..., 1::2]
        cos, sin = self.angle.cos()[:, None], self.angle.sin()[:, None]
        return torch.stack((cos * evens - sin * odds, sin * evens + cos * odds), -1).flatten(-2)

    def attention(self, query, key, value):
        scores = self.turned(query) @ self.turned(key).mT / math.sqrt(query.shape[-1])
        return (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)

    def double(self, name, streams, vec):
        pooled = {s: self.linear(f"{name}.{s}_mod.lin", silu(vec)).chunk(6, -1) for s in streams}
        parts = []
        for s, x in streams.items():
            qkv = self.linear(f"{name}.{s}_attn.qkv", normed(x, *pooled[s][:2]))
            parts.append(self.heads(f"{name}.{s}_attn.norm", qkv))
        both = self.attention(*(torch.cat(part, 2) for part in zip(*parts, strict=True)))
        projections = dict(
            zip(streams, both.split([x.shape[1] for x in streams.values()], 1), strict=True)
        )
        outputs = {}
        for s, x in streams.items():
            _, _, gate, shift, scale, last = pooled[s]
            x = x + gate[:, None] * self.linear(f"{name}.{s}_attn.proj", projections[s])
            hidden = gelu(self.linear(f"{name}.{s}_mlp.0", normed(x, shift, scale)))
            outputs[s] = x + last[:, None] * self.linear(f"{name}.{s}_mlp.2", hidden)
        return outputs

    def single(self, name, x, vec):
        shift, scale, gate = self.linear(f"{name}.modulation.lin", silu(vec)).chunk(3, -1)
        qkv, mlp = self.linear(f"{name}.linear1", normed(x, shift, scale)).tensor_split(
            [3 * x.shape[-1]], -1
        )
        both = torch.cat((self.attention(*self.heads(f"{name}.norm", qkv)), gelu(mlp)), -1)
        return x + gate[:, None] * self.linear(f"{name}.linear2", both)

    def __call__(self, img, img_ids, txt, txt_ids, timesteps, y, guidance):
        ids, turns = torch.cat((txt_ids, img_ids), 1).float(), []
        for axis, dim in enumerate(self.p.axes_dim):
            turns.append(ids[..., axis, None] / self.p.theta ** (torch.arange(0, dim, 2) / dim))
        self.angle = torch.cat(turns, -1)
        vec = self.scalar("time_in", timesteps)
        vec = vec + self.scalar("guidance_in", guidance) if self.p.guidance_embed else vec
        vec = vec if y is None else vec + self.embedder("vector_in", y)
        streams = {"txt": self.linear("txt_in", txt), "img": self.linear("img_in", img)}
        for i in range(self.p.depth):
            streams = self.double(f"double_blocks.{i}", streams, vec)
        both = torch.cat(tuple(streams.values()), 1)
        for i in range(self.p.depth_single_blocks):
            both = self.single(f"single_blocks.{i}", both, vec)
        pooled = self.linear("final_layer.adaLN_modulation.1", silu(vec)).chunk(2, -1)
        return self.linear("final_layer.linear", normed(both[:, txt.shape[1] :], *pooled))


CHANGES = {
    "as it is": {},
    "guidance, no bias, other widths": dict(
        guidance_embed=True, qkv_bias=False, in_channels=6, out_channels=1
    ),
    "one axis": dict(axes_dim=[16]),
    "eight axes": dict(axes_dim=[2] * 8),
    "four axes, FLUX.2's theta": dict(axes_dim=[4] * 4, theta=2000),
    "one head": dict(num_heads=1, axes_dim=[8, 12, 12]),
    "a head for each pair": dict(num_heads=16, axes_dim=[2]),
    "no double block": dict(depth=0),
    "no single block": dict(depth_single_blocks=0),
    "no block": dict(depth=0, depth_single_blocks=0),
    "a broken ratio": dict(mlp_ratio=2.7, context_in_dim=1, vec_in_dim=1),
}


@torch.no_grad()
@pytest.mark.parametrize("case", CHANGES)
@pytest.mark.parametrize(
    ("batch", "tokens", "length", "pooled"), [(2, 6, 5, True), (3, 1, 9, False), (1, 7, 0, True)]
)
def test_the_prediction_equals_the_papers_formulas(case, batch, tokens, length, pooled):
    params = FluxParams(**{**BASE, **CHANGES[case]})
    net, axes = Flux(params).eval(), len(params.axes_dim)
    for parameter in net.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    arguments = [
        torch.randn(batch, tokens, params.in_channels),
        torch.randint(0, 600, (batch, tokens, axes)),
    ]
    arguments += [
        torch.randn(batch, length, params.context_in_dim),
        99 * torch.randn(batch, length, axes),
    ]
    arguments += [
        torch.rand(batch),
        torch.randn(batch, params.vec_in_dim) if pooled else None,
        5 * torch.rand(batch),
    ]
    prediction, expected = net(*arguments), Formulas(params, net.state_dict())(*arguments)
    assert prediction.shape == (batch, tokens, params.out_channels)
    assert (prediction - expected).abs().max() <= 1e-5 * expected.abs().max()
