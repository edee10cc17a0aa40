"""The folded prior equals the two scaled attentions of the definition."""

import pytest
import torch
import torch.nn.functional as F

from tinyflux_pl.nets.attention import (
    AttentionPrior,
    JointAttention,
    SelfAttention,
    attend,
    split_heads,
)
from tinyflux_pl.nets.position_ids import grid_ids
from tinyflux_pl.nets.rope import RotaryEmbedding, apply_rotary


@pytest.fixture
def parts():
    txt, img = torch.randn(2, 5, 32), torch.randn(2, 12, 32)
    ids = torch.cat((torch.zeros(5, 3), grid_ids(3, 4)))
    prior = AttentionPrior(torch.tensor([[0.5, 2.0], [1.0, 1.5]]), torch.rand(2, 12))
    return txt, img, RotaryEmbedding((4, 6, 6))(ids), prior


def waken(gain):
    torch.nn.init.normal_(gain.weight)
    torch.nn.init.normal_(gain.bias)
    return gain


def softmax_attention(query, key, value, temperature):
    logits = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5 / temperature
    return (logits.softmax(-1) @ value).transpose(1, 2).flatten(2)


def test_joint_attention_scales_image_queries_and_image_tokens(parts):
    txt, img, table, prior = parts
    attention = JointAttention(32, 2, 16, qk_norm=False, prior=True)
    gain = waken(attention.spatial_to_mod)(prior.importance)
    txt_out, img_out = attention(txt, img, table, None, prior)
    (tq, tk, tv), (iq, ik, iv) = (
        split_heads(attention.txt_qkv(txt), 2),
        split_heads(attention.img_qkv(img), 2),
    )
    iq, ik = apply_rotary(iq, table[5:]) * gain, apply_rotary(ik, table[5:]) * gain
    key, value = torch.cat((tk, ik), 2), torch.cat((tv, iv), 2)
    image = softmax_attention(iq, key, value, prior.temperature[..., None, None])
    text = softmax_attention(tq, key, value, 1.0)
    assert torch.allclose(img_out, attention.img_out(image), atol=1e-5)
    assert torch.allclose(txt_out, attention.txt_out(text), atol=1e-5)


def test_self_attention_scales_every_query_by_its_temperature(parts):
    txt, img, table, prior = parts
    attention = SelfAttention(32, 2, 16, qk_norm=False, prior=True)
    gain = waken(attention.spatial_to_mod)(prior.importance)
    x = torch.cat((txt, img), 1)
    query, key, value = split_heads(attention.qkv(x), 2)
    full_gain = torch.cat((torch.ones(2, 2, 5, 1), gain), 2)
    query, key = apply_rotary(query, table) * full_gain, apply_rotary(key, table) * full_gain
    expected = softmax_attention(query, key, value, prior.temperature[..., None, None])
    assert torch.allclose(attention(x, table, None, prior), attention.out_proj(expected), atol=1e-5)


def test_a_new_gain_is_one(parts):
    *_, prior = parts
    assert torch.equal(
        JointAttention(32, 2, 16, True, True).spatial_to_mod(prior.importance),
        torch.ones(2, 2, 12, 1),
    )


def test_query_and_key_norm_are_invariant_to_input_scale(parts):
    txt, img, table, _ = parts
    attention = SelfAttention(32, 2, 16, qk_norm=True, prior=False)
    x = torch.cat((txt, img), 1)
    with torch.no_grad():
        before = attention(x, table)
        attention.qkv.weight[:64] *= 50  # query and key rows
        assert torch.allclose(attention(x, table), before, atol=1e-4)


def test_masked_keys_have_no_influence():
    query, key, value = torch.randn(3, 2, 2, 7, 8)
    mask = torch.tensor([True] * 4 + [False] * 3).expand(2, 1, 1, 7)
    assert torch.allclose(
        attend(query, key, value, mask), attend(query, key[:, :, :4], value[:, :, :4]), atol=1e-6
    )


def test_half_precision_on_cpu_is_computed_in_fp32():
    query, key, value = torch.randn(3, 2, 2, 7, 8).bfloat16()
    wide = (
        F.scaled_dot_product_attention(query.float(), key.float(), value.float())
        .transpose(1, 2)
        .flatten(2)
    )
    with torch.autocast("cpu", torch.bfloat16):
        out = attend(query, key, value)
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, wide.bfloat16())
