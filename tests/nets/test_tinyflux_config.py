"""Nonsense is refused early; published configurations are read as their versions read them."""

import json

import pytest

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.nets.tinyflux_config import TinyFluxConfig


@pytest.mark.parametrize(
    "wrong",
    [
        {"hidden_size": 500},
        {"axes_dims_rope": (16, 56, 57)},
        {"axes_dims_rope": (16, 55, 57)},
        {"axes_dims_rope": (64, 64)},
        {"patch_size": 0},
        {"sol_map": "softmax"},
        {"sol_geometric_weight": 1.5},
        {"lune_dropout": 1.0},
        {"num_double_layers": -1},
        {"time_scale": 0.0},
        {"gelu_approximation": "erf"},
    ],
)
def test_an_invalid_configuration_is_refused(wrong):
    with pytest.raises(ConfigError):
        TinyFluxConfig(**wrong)


def test_the_error_for_an_unknown_key_names_the_nearest():
    with pytest.raises(ConfigError, match="num_double_layers"):
        TinyFluxConfig.from_dict({"num_double_layer": 3})


def test_the_configuration_round_trips_through_json():
    config = TinyFluxConfig(patch_size=2, axes_dims_rope=[32, 48, 48])
    assert TinyFluxConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_reference_loading_ignores_keys_that_earlier_versions_ignored():
    config = TinyFluxConfig.reference(
        {"patch_size": 2, "t5_pool_mode": "attention", "qk_norm": True, "_metadata": {}}
    )
    assert (config.patch_size, config.num_sol_stats, config.time_scale) == (1, 3, 1.0)
    assert (
        not config.qk_norm
        and config.reference_layout
        and config.use_lune_expert
        and config.use_t5_vec
    )


def test_expert_names_of_v3_and_v41_are_understood():
    v3 = TinyFluxConfig.reference(
        {"use_expert_predictor": True, "expert_dim": 96, "expert_hidden_dim": 32}
    )
    assert (v3.use_lune_expert, v3.lune_expert_dim, v3.lune_hidden_dim) == (True, 96, 32)
    assert not v3.use_sol_prior and not v3.use_t5_vec
    both = {
        "use_expert_predictor": True,
        "expert_dim": 96,
        "use_lune_expert": True,
        "lune_expert_dim": 80,
    }
    v41 = TinyFluxConfig.reference(both)
    assert (v41.lune_expert_dim, v41.use_sol_prior) == (80, True)
    assert not TinyFluxConfig.reference({"use_expert_predictor": False}).use_lune_expert
