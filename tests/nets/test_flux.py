"""Flux beyond the original: padding, ids, trainable initialisation, refusals."""

from dataclasses import replace

import pytest
import torch

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.nets.flux import Flux, FluxParams

PARAMS = FluxParams(
    in_channels=4,
    out_channels=3,
    vec_in_dim=5,
    context_in_dim=7,
    hidden_size=32,
    mlp_ratio=2.0,
    num_heads=2,
    depth=2,
    depth_single_blocks=2,
    axes_dim=[4, 6, 6],
    theta=10_000,
    qkv_bias=False,
    guidance_embed=False,
)
DEV = FluxParams(64, 64, 768, 4096, 3072, 4.0, 24, 19, 38, [16, 56, 56], 10_000, True, True)
README = FluxParams(2, 2, 4, 4, 1024, 4.0, 8, 2, 4, [16, 56, 56], 10_000, True, False)


def network(**changes):
    """A small network with nothing left at zero, so that every part has a say."""
    torch.manual_seed(0)
    net = Flux(replace(PARAMS, **changes)).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net


def inputs(batch=2, tokens=6, length=5):
    generator = torch.Generator().manual_seed(1)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    return {
        "img": normal(batch, tokens, 4),
        "img_ids": torch.randint(0, 30, (batch, tokens, 3), generator=generator),
        "txt": normal(batch, length, 7),
        "txt_ids": torch.randint(0, 30, (batch, length, 3), generator=generator),
        "timesteps": torch.rand(batch, generator=generator),
        "y": normal(batch, 5),
    }


@torch.no_grad()
def test_padding_of_image_or_text_has_no_influence():
    net, batch = network(), inputs()
    img_mask = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    txt_mask = torch.tensor([[True] * 3 + [False] * 2, [True] * 5])
    out = net(**batch, img_mask=img_mask, txt_mask=txt_mask)
    assert (out[~img_mask] == 0).all()
    noise = {
        "img": batch["img"].masked_fill(~img_mask[..., None], torch.nan),
        "txt": batch["txt"].masked_fill(~txt_mask[..., None], 1e4),
        "img_ids": batch["img_ids"].masked_fill(~img_mask[..., None], 99),
    }
    assert torch.equal(net(**{**batch, **noise}, img_mask=img_mask, txt_mask=txt_mask), out)
    for row in range(2):
        n, length = int(img_mask[row].sum()), int(txt_mask[row].sum())
        cuts = {"img": n, "img_ids": n, "txt": length, "txt_ids": length}
        alone = {
            k: v[row : row + 1, : cuts[k]] if k in cuts else v[row : row + 1]
            for k, v in batch.items()
        }
        assert torch.allclose(net(**alone)[0], out[row, :n], atol=1e-5)
    assert not torch.allclose(net(**batch)[img_mask], out[img_mask], atol=1e-3)


def test_padding_gets_no_gradient():
    net, batch = network(), inputs()
    txt, mask = batch["txt"].clone().requires_grad_(), torch.tensor([[True] * 2 + [False] * 3] * 2)
    net(**{**batch, "txt": txt}, txt_mask=mask).square().sum().backward()
    assert (txt.grad[~mask] == 0).all() and txt.grad[mask].abs().min() > 0


@torch.no_grad()
def test_position_ids_are_read_in_fp32_for_any_weight_dtype():
    net, batch = network().to(torch.bfloat16), inputs()
    near = {**batch, "img_ids": batch["img_ids"] + 600}
    nearer = {**near, "img_ids": near["img_ids"] + torch.tensor([0, 1, 0])}
    seen = []
    hook = net.pe_embedder.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    one, other = net(**near), net(**nearer)
    hook.remove()
    assert seen[0].dtype == torch.float32 and one.dtype == torch.bfloat16
    assert not torch.equal(one, other)


@torch.no_grad()
def test_position_ids_of_one_sample_are_broadcast():
    net, batch = network(), inputs()
    ids = {name: batch[name][:1] for name in ("img_ids", "txt_ids")}
    spread = {name: value.expand(2, -1, -1) for name, value in ids.items()}
    assert torch.equal(net(**{**batch, **ids}), net(**{**batch, **spread}))
    mixed = {**batch, "img_ids": ids["img_ids"], "txt_ids": spread["txt_ids"]}
    assert torch.equal(net(**mixed), net(**{**batch, **spread}))


@torch.no_grad()
def test_outputs_are_permutation_equivariant_given_position_ids():
    net, batch = network(), inputs()
    order = torch.randperm(6)
    shuffled = {**batch, "img": batch["img"][:, order], "img_ids": batch["img_ids"][:, order]}
    assert torch.allclose(net(**shuffled), net(**batch)[:, order], atol=1e-5)
    turned = {**batch, "txt": batch["txt"].flip(1), "txt_ids": batch["txt_ids"].flip(1)}
    assert torch.allclose(net(**turned), net(**batch), atol=1e-5)
    assert not torch.allclose(
        net(**{**turned, "txt_ids": batch["txt_ids"]}), net(**batch), atol=1e-4
    )


def test_a_new_network_has_zero_gates_and_output_and_learns():
    net, batch = Flux(PARAMS), inputs()
    assert (net(**batch) == 0).all()
    img, txt, vec = torch.randn(2, 6, 32), torch.randn(2, 5, 32), torch.randn(2, 32)
    table = net.pe_embedder(torch.zeros(2, 11, 3))[:, None]
    outputs = net.double_blocks[0](img, txt, vec, table)
    assert torch.equal(outputs[0], img) and torch.equal(outputs[1], txt)
    assert torch.equal(net.single_blocks[0](img, vec, table[:, :, :6]), img)
    target = torch.randn(2, 6, 3)
    optimizer = torch.optim.Adam(net.parameters(), 5e-3)
    losses = []
    for _ in range(60):
        loss = (net(**batch) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
    assert [name for name, p in net.named_parameters() if p.grad is None] == []


def trace(net, batch):
    """Gradients, and the bytes kept for the backward pass."""
    net.zero_grad()
    kept = 0

    def keep(tensor):
        nonlocal kept
        kept += tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = net(**batch)
    out.square().mean().backward()
    return {name: p.grad.clone() for name, p in net.named_parameters()}, kept


def test_gradient_checkpointing_saves_memory_and_keeps_every_gradient():
    net, batch = network(), inputs(tokens=40)
    plain, much = trace(net, batch)
    net.gradient_checkpointing = True
    checkpointed, little = trace(net, batch)
    assert little < much / 2
    assert all(torch.allclose(plain[k], checkpointed[k], rtol=1e-4, atol=1e-7) for k in plain)


@torch.no_grad()
def test_autocast_keeps_residual_stream_and_output_in_fp32():
    net, batch, streams = network(), inputs(), []
    hook = net.double_blocks[1].register_forward_pre_hook(
        lambda module, args: streams.extend(args[:2])
    )
    with torch.autocast("cpu", torch.bfloat16):
        out = net(**batch)
    hook.remove()
    assert {out.dtype, *(s.dtype for s in streams)} == {torch.float32}
    assert torch.allclose(out, net(**batch), atol=0.1 * float(out.abs().max()))


@torch.no_grad()
def test_guidance_changes_the_output_and_is_required_where_the_network_reads_it():
    net, batch = network(guidance_embed=True), inputs()
    low, high = (net(**batch, guidance=torch.full((2,), g)) for g in (1.0, 4.0))
    assert not torch.allclose(low, high, atol=1e-3)
    with pytest.raises(ConfigError, match="guidance"):
        net(**batch)
    without = network()
    assert torch.equal(without(**batch, guidance=torch.ones(2)), without(**batch))


@pytest.mark.parametrize(
    ("params", "keys", "parameters"), [(DEV, 780, 11_901_408_320), (README, None, 142_997_506)]
)
def test_sizes_of_known_configurations(params, keys, parameters):
    with torch.device("meta"):
        net = Flux(params)
    assert sum(p.numel() for p in net.parameters()) == parameters
    assert keys is None or len(net.state_dict()) == keys


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_heads": 5}, "not a multiple"),
        ({"axes_dim": [4, 6, 4]}, "sums to 14"),
        ({"axes_dim": [3, 6, 7]}, "even"),
        ({"axes_dim": [16, 0]}, "even"),
        ({"depth": -1}, "blocks"),
        ({"context_in_dim": 0}, "context_in_dim"),
        ({"mlp_ratio": 0.0}, "mlp_ratio"),
    ],
)
def test_impossible_sizes_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        replace(PARAMS, **changes)


def test_ids_of_another_number_of_columns_are_refused():
    batch = inputs()
    two = {**batch, "img_ids": batch["img_ids"][..., :2], "txt_ids": batch["txt_ids"][..., :2]}
    with pytest.raises(ConfigError, match=r"2 columns, the network 3 axes"):
        network()(**two)
    assert network(axes_dim=[6, 10])(**two).shape == (2, 6, 3)


@torch.no_grad()
def test_the_compiler_friendly_form_is_equivalent(monkeypatch):
    net, batch = network(), inputs()
    expected = net(**batch)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert torch.allclose(net(**batch), expected, atol=1e-5)
