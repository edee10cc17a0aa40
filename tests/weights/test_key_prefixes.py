"""The keys of a network as trainers and image tools write them."""

import pytest

from tinyflux_pl.core.errors import CheckpointMismatch
from tinyflux_pl.weights.key_prefixes import NETWORK, network_tensors


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "model.diffusion_model.",
        "diffusion_model.",
        "transformer.",
        "unet.",
        "_orig_mod.",
        "module.",
        "module.module.",
        "module._orig_mod.",
        "_orig_mod.module.",
        "_fsdp_wrapped_module.",
        "model.diffusion_model._orig_mod.",
        "module.transformer._orig_mod.",
        "_orig_mod.diffusion_model.module.",
    ],
)
def test_wrapper_and_trainer_prefixes_are_removed(prefix):
    keys = ("blocks.0.attn.to_q.weight", "norm.bias")
    assert network_tensors({prefix + key: key for key in keys}, NETWORK, "f") == {
        key: key for key in keys
    }


def test_a_wrapper_around_a_block_is_removed():
    assert network_tensors(
        {"blocks.0._orig_mod.attn._checkpoint_wrapped_module.q": 1}, NETWORK, "f"
    ) == {"blocks.0.attn.q": 1}


def test_only_the_network_of_a_complete_checkpoint_is_read():
    checkpoint = {
        "model.diffusion_model.a": 1,
        "first_stage_model.a": 2,
        "optimizer.state": 3,
        "model_ema.decay": 4,
    }
    assert network_tensors(checkpoint, NETWORK, "f") == {"a": 1}


def test_unknown_keys_next_to_a_trainer_prefix_are_kept_for_the_report():
    tensors = {"transformer.a": 1, "vae.a": 2, "text_encoder_2.a": 3, "stray.a": 4}
    assert network_tensors(tensors, NETWORK, "f") == {"a": 1, "stray.a": 4}


@pytest.mark.parametrize("other", ["module.a", "_orig_mod.a"])
def test_two_keys_for_one_weight_are_refused(other):
    with pytest.raises(CheckpointMismatch, match="two keys for one weight: a"):
        network_tensors({"a": 1, other: 2}, NETWORK, "f")
