"""Promises of TinyFluxDeep beyond the published network."""

import pytest
import torch

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.nets.position_ids import grid_ids
from tinyflux_pl.nets.tinyflux import TinyFluxDeep
from tinyflux_pl.nets.tinyflux_config import TinyFluxConfig

SIZES = {
    "hidden_size": 32,
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "axes_dims_rope": (4, 6, 6),
    "in_channels": 4,
    "joint_attention_dim": 12,
    "pooled_projection_dim": 10,
    "num_double_layers": 2,
    "num_single_layers": 2,
    "mlp_ratio": 2.0,
    "lune_expert_dim": 14,
    "lune_hidden_dim": 16,
    "sol_hidden_dim": 16,
}


def network(**changes):
    """A small network with nothing left at zero, so that every part has a say."""
    torch.manual_seed(0)
    net = TinyFluxDeep(TinyFluxConfig(**{**SIZES, **changes})).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net


def inputs(height=6, width=6, batch=2, length=5):
    generator = torch.Generator().manual_seed(1)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    return {
        "hidden_states": normal(batch, height * width, 4),
        "encoder_hidden_states": normal(batch, length, 12),
        "pooled_projections": normal(batch, 10),
        "timestep": torch.rand(batch, generator=generator),
        "img_ids": grid_ids(height, width),
    }


@torch.no_grad()
@pytest.mark.parametrize("changes", [{}, {"reference_layout": True, "text_position_ids": False}])
def test_padded_text_has_no_influence_on_the_image(changes):
    net, batch = network(**changes), inputs()
    mask = torch.tensor([[True, True, True, False, False], [True] * 4 + [False]])
    out = net(**batch, encoder_attention_mask=mask)
    noisy = batch["encoder_hidden_states"].masked_fill(~mask[..., None], 1e4)
    assert torch.equal(
        net(**{**batch, "encoder_hidden_states": noisy}, encoder_attention_mask=mask), out
    )
    first = {k: v[:1] if k != "img_ids" else v for k, v in batch.items()}
    short = {**first, "encoder_hidden_states": first["encoder_hidden_states"][:, :3]}
    assert torch.allclose(net(**short), out[:1], atol=1e-5)
    assert not torch.allclose(net(**batch), out, atol=1e-3)


@torch.no_grad()
def test_fully_padded_text_gives_a_finite_output():
    assert (
        network()(**inputs(), encoder_attention_mask=torch.zeros(2, 5, dtype=torch.bool))
        .isfinite()
        .all()
    )


@torch.no_grad()
def test_the_order_of_words_matters_in_new_networks():
    batch = inputs()
    flipped = {**batch, "encoder_hidden_states": batch["encoder_hidden_states"].flip(1)}
    assert not torch.allclose(network()(**batch), network()(**flipped), atol=1e-3)
    old = network(text_position_ids=False)
    assert torch.allclose(old(**batch), old(**flipped), atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(8, 12), (4, 16), (12, 8)])
def test_outputs_are_permutation_equivariant_given_position_ids(height, width):
    net, batch = network(), inputs(height, width)
    order = torch.randperm(height * width)
    ids = torch.stack((batch["img_ids"][order], batch["img_ids"]))
    tokens = torch.stack((batch["hidden_states"][0, order], batch["hidden_states"][1]))
    out, shuffled = net(**batch), net(**{**batch, "hidden_states": tokens, "img_ids": ids})
    assert torch.allclose(shuffled[0], out[0, order], atol=1e-4)
    assert torch.allclose(shuffled[1], out[1], atol=1e-4)


@torch.no_grad()
def test_rectangles_require_position_ids_and_squares_have_a_default():
    net, batch = network(), inputs(4, 16)
    assert not torch.allclose(net(**batch), net(**{**batch, "img_ids": grid_ids(8, 8)}), atol=1e-3)
    assert torch.equal(net(**{**inputs(6, 6), "img_ids": None}), net(**inputs(6, 6)))
    with pytest.raises(ConfigError, match="img_ids"):
        net(**{**inputs(8, 12), "img_ids": None})


@torch.no_grad()
def test_teacher_features_are_selected_per_sample():
    net, batch = network(), inputs()
    lune = {"lune_features": torch.randn(2, 14)}
    sol = {
        "sol_stats": torch.rand(2, 4),
        "sol_spatial": torch.rand(2, 64).softmax(-1).view(2, 8, 8),
    }
    present = torch.tensor([True, False])
    for teacher, mask in ((lune, "lune_mask"), (sol, "sol_mask")):
        with_teacher, alone, mixed = (
            net(**batch, **teacher),
            net(**batch),
            net(**batch, **teacher, **{mask: present}),
        )
        assert not torch.allclose(with_teacher, alone, atol=1e-3)
        assert torch.allclose(mixed[0], with_teacher[0], atol=1e-6)
        assert torch.allclose(mixed[1], alone[1], atol=1e-6)


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
    return {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}, kept


def test_gradient_checkpointing_saves_memory_and_keeps_every_gradient():
    net, batch = network(), inputs()
    plain, much = trace(net, batch)
    net.gradient_checkpointing = True
    checkpointed, little = trace(net, batch)
    assert little < much / 2
    assert plain.keys() == checkpointed.keys()
    assert all(torch.allclose(plain[k], checkpointed[k], rtol=1e-4, atol=1e-7) for k in plain)


def test_new_blocks_are_the_identity_and_receive_gradients():
    net = TinyFluxDeep(TinyFluxConfig(**SIZES))
    txt, img, vec = torch.randn(2, 5, 32), torch.randn(2, 36, 32), torch.randn(2, 32)
    table = net.rope(torch.cat((torch.zeros(5, 3), grid_ids(6, 6))))
    for output, batch in zip(net.double_blocks[0](txt, img, vec, table), (txt, img), strict=True):
        assert torch.equal(output, batch)
    assert torch.equal(net.single_blocks[0](img, vec, table[5:]), img)
    batch, target = inputs(), torch.randn(2, 36, 4)
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    losses = []
    for _ in range(40):
        loss = (net(**batch) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_every_parameter_of_a_new_network_has_a_gradient():
    net = network()
    out, info = net(**inputs(), return_expert_pred=True)
    (out.square().sum() + info["lune"]["pred"].sum() + info["sol"]["stats_pred"].sum()).backward()
    assert [name for name, p in net.named_parameters() if p.grad is None] == []


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
    half = network().to(torch.bfloat16)(**batch)
    assert half.dtype == torch.bfloat16 and half.isfinite().all()


@torch.no_grad()
def test_nearby_times_have_different_embeddings():
    embedder = TinyFluxDeep(TinyFluxConfig(**SIZES)).time_in
    near, far = embedder(torch.tensor([0.50, 0.51])), embedder(torch.tensor([0.0, 1.0]))
    assert torch.cosine_similarity(far[0], far[1], dim=0) < 0.9
    assert not torch.allclose(near[0], near[1], atol=1e-3)


@torch.no_grad()
def test_per_head_temperatures_change_the_output():
    batch = inputs()
    shared, per_head = network(per_head_temperature=False), network()
    assert not torch.allclose(shared(**batch), per_head(**batch), atol=1e-4)


def test_frozen_experts_receive_no_gradient():
    net = network(freeze_lune=True, freeze_sol=True)
    assert not any(
        p.requires_grad for p in [*net.lune_predictor.parameters(), *net.sol_prior.parameters()]
    )
    assert net.img_in.weight.requires_grad


@torch.no_grad()
def test_the_output_depends_on_embedded_guidance():
    net, batch = network(guidance_embeds=True), inputs()
    low, high = (net(**batch, guidance=torch.full((2,), g)) for g in (1.0, 4.0))
    assert not torch.allclose(low, high, atol=1e-3)


def test_the_compiler_friendly_forms_are_equivalent(monkeypatch):
    net, batch = network(), inputs(4, 6)
    plain, _ = trace(net, batch)
    expected = net(**batch)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    seen, _ = trace(net, batch)
    assert torch.allclose(net(**batch), expected, atol=1e-5)
    assert all(torch.allclose(plain[k], seen[k], rtol=1e-4, atol=1e-6) for k in plain)
