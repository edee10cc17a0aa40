"""What TinyFluxDeep promises beyond the published network."""

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
def test_padded_text_never_reaches_the_image(changes):
    net, given = network(**changes), inputs()
    mask = torch.tensor([[True, True, True, False, False], [True] * 4 + [False]])
    out = net(**given, encoder_attention_mask=mask)
    noisy = given["encoder_hidden_states"].masked_fill(~mask[..., None], 1e4)
    assert torch.equal(
        net(**{**given, "encoder_hidden_states": noisy}, encoder_attention_mask=mask), out
    )
    first = {k: v[:1] if k != "img_ids" else v for k, v in given.items()}
    short = {**first, "encoder_hidden_states": first["encoder_hidden_states"][:, :3]}
    assert torch.allclose(net(**short), out[:1], atol=1e-5)
    assert not torch.allclose(net(**given), out, atol=1e-3)


@torch.no_grad()
def test_text_that_is_all_padding_is_finite():
    assert (
        network()(**inputs(), encoder_attention_mask=torch.zeros(2, 5, dtype=torch.bool))
        .isfinite()
        .all()
    )


@torch.no_grad()
def test_the_order_of_words_matters_in_new_networks():
    given = inputs()
    flipped = {**given, "encoder_hidden_states": given["encoder_hidden_states"].flip(1)}
    assert not torch.allclose(network()(**given), network()(**flipped), atol=1e-3)
    old = network(text_position_ids=False)
    assert torch.allclose(old(**given), old(**flipped), atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(8, 12), (4, 16), (12, 8)])
def test_tokens_are_a_set_placed_by_their_ids(height, width):
    net, given = network(), inputs(height, width)
    order = torch.randperm(height * width)
    ids = torch.stack((given["img_ids"][order], given["img_ids"]))
    tokens = torch.stack((given["hidden_states"][0, order], given["hidden_states"][1]))
    out, shuffled = net(**given), net(**{**given, "hidden_states": tokens, "img_ids": ids})
    assert torch.allclose(shuffled[0], out[0, order], atol=1e-4)
    assert torch.allclose(shuffled[1], out[1], atol=1e-4)


@torch.no_grad()
def test_a_rectangle_is_not_read_as_a_square():
    net, given = network(), inputs(4, 16)
    assert not torch.allclose(net(**given), net(**{**given, "img_ids": grid_ids(8, 8)}), atol=1e-3)
    assert torch.equal(net(**{**inputs(6, 6), "img_ids": None}), net(**inputs(6, 6)))
    with pytest.raises(ConfigError, match="img_ids"):
        net(**{**inputs(8, 12), "img_ids": None})


@torch.no_grad()
def test_teachers_are_used_sample_by_sample():
    net, given = network(), inputs()
    lune = {"lune_features": torch.randn(2, 14)}
    sol = {
        "sol_stats": torch.rand(2, 4),
        "sol_spatial": torch.rand(2, 64).softmax(-1).view(2, 8, 8),
    }
    shown = torch.tensor([True, False])
    for teacher, mask in ((lune, "lune_mask"), (sol, "sol_mask")):
        with_teacher, alone, mixed = (
            net(**given, **teacher),
            net(**given),
            net(**given, **teacher, **{mask: shown}),
        )
        assert not torch.allclose(with_teacher, alone, atol=1e-3)
        assert torch.allclose(mixed[0], with_teacher[0], atol=1e-6)
        assert torch.allclose(mixed[1], alone[1], atol=1e-6)


def trace(net, given):
    """Gradients, and the bytes kept for the backward pass."""
    net.zero_grad()
    kept = 0

    def keep(tensor):
        nonlocal kept
        kept += tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = net(**given)
    out.square().mean().backward()
    return {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}, kept


def test_gradient_checkpointing_keeps_less_and_changes_no_gradient():
    net, given = network(), inputs()
    plain, much = trace(net, given)
    net.gradient_checkpointing = True
    checkpointed, little = trace(net, given)
    assert little < much / 2
    assert plain.keys() == checkpointed.keys()
    assert all(torch.allclose(plain[k], checkpointed[k], rtol=1e-4, atol=1e-7) for k in plain)


def test_blocks_start_as_the_identity_and_still_learn():
    net = TinyFluxDeep(TinyFluxConfig(**SIZES))
    txt, img, vec = torch.randn(2, 5, 32), torch.randn(2, 36, 32), torch.randn(2, 32)
    table = net.rope(torch.cat((torch.zeros(5, 3), grid_ids(6, 6))))
    for found, given in zip(net.double_blocks[0](txt, img, vec, table), (txt, img), strict=True):
        assert torch.equal(found, given)
    assert torch.equal(net.single_blocks[0](img, vec, table[5:]), img)
    given, target = inputs(), torch.randn(2, 36, 4)
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    losses = []
    for _ in range(40):
        loss = (net(**given) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_every_parameter_of_a_new_network_is_used():
    net = network()
    out, info = net(**inputs(), return_expert_pred=True)
    (out.square().sum() + info["lune"]["pred"].sum() + info["sol"]["stats_pred"].sum()).backward()
    assert [name for name, p in net.named_parameters() if p.grad is None] == []


@torch.no_grad()
def test_autocast_keeps_the_stream_and_the_answer_in_fp32():
    net, given, streams = network(), inputs(), []
    hook = net.double_blocks[1].register_forward_pre_hook(
        lambda module, args: streams.extend(args[:2])
    )
    with torch.autocast("cpu", torch.bfloat16):
        out = net(**given)
    hook.remove()
    assert {out.dtype, *(s.dtype for s in streams)} == {torch.float32}
    assert torch.allclose(out, net(**given), atol=0.1 * float(out.abs().max()))
    half = network().to(torch.bfloat16)(**given)
    assert half.dtype == torch.bfloat16 and half.isfinite().all()


@torch.no_grad()
def test_nearby_times_have_different_embeddings():
    embedder = TinyFluxDeep(TinyFluxConfig(**SIZES)).time_in
    near, far = embedder(torch.tensor([0.50, 0.51])), embedder(torch.tensor([0.0, 1.0]))
    assert torch.cosine_similarity(far[0], far[1], dim=0) < 0.9
    assert not torch.allclose(near[0], near[1], atol=1e-3)


@torch.no_grad()
def test_heads_have_temperatures_of_their_own():
    given = inputs()
    shared, own = network(per_head_temperature=False), network()
    assert not torch.allclose(shared(**given), own(**given), atol=1e-4)


def test_frozen_experts_do_not_learn():
    net = network(freeze_lune=True, freeze_sol=True)
    assert not any(
        p.requires_grad for p in [*net.lune_predictor.parameters(), *net.sol_prior.parameters()]
    )
    assert net.img_in.weight.requires_grad


@torch.no_grad()
def test_guidance_is_heard():
    net, given = network(guidance_embeds=True), inputs()
    low, high = (net(**given, guidance=torch.full((2,), g)) for g in (1.0, 4.0))
    assert not torch.allclose(low, high, atol=1e-3)


def test_the_forms_that_a_compiler_sees_compute_the_same(monkeypatch):
    net, given = network(), inputs(4, 6)
    plain, _ = trace(net, given)
    expected = net(**given)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    seen, _ = trace(net, given)
    assert torch.allclose(net(**given), expected, atol=1e-5)
    assert all(torch.allclose(plain[k], seen[k], rtol=1e-4, atol=1e-6) for k in plain)
