"""Sizes and options of a TinyFlux network, checked before a tensor is allocated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.nearest_name import did_you_mean

SOL_MAPS = ("density", "sigmoid")
GELUS = ("none", "tanh")
_POSITIVE = [
    "hidden_size",
    "num_attention_heads",
    "attention_head_dim",
    "in_channels",
    "patch_size",
    "joint_attention_dim",
    "pooled_projection_dim",
    "lune_expert_dim",
    "lune_hidden_dim",
    "sol_spatial_size",
    "num_sol_stats",
    "time_scale",
    "mlp_ratio",
]


@dataclass(frozen=True)
class TinyFluxConfig:
    """Sizes, expert heads, and the choices in which new training differs from the published v4.2.

    The defaults are the reference's sizes with what new training does right; `reference` gives the
    published mathematics. `in_channels` counts latent channels: a token is `in_channels *
    patch_size**2` wide. Raises ConfigError for a combination that no network can have.
    """

    hidden_size: int = 512
    num_attention_heads: int = 4
    attention_head_dim: int = 128
    in_channels: int = 16
    patch_size: int = 1
    joint_attention_dim: int = 768
    pooled_projection_dim: int = 768
    num_double_layers: int = 15
    num_single_layers: int = 25
    mlp_ratio: float | int = 4.0
    axes_dims_rope: Sequence[int] = (16, 56, 56)
    use_lune_expert: bool = True
    lune_expert_dim: int = 1280
    lune_hidden_dim: int = 512
    lune_dropout: float = 0.1
    freeze_lune: bool = False
    use_sol_prior: bool = True
    sol_spatial_size: int = 8
    sol_hidden_dim: int = 256
    sol_geometric_weight: float = 0.7
    freeze_sol: bool = False
    use_t5_vec: bool = True
    guidance_embeds: bool = False
    inpaint_channels: int = 0  # of a masked picture, beside the latents
    # In these the reference differs: see COMPATIBLE.
    num_sol_stats: int = 4
    time_scale: float | int = 1000.0
    qk_norm: bool = True
    per_head_temperature: bool = True
    zero_init: bool = True
    sol_map: str = "density"
    text_position_ids: bool = True
    gelu_approximation: str = "none"  # "tanh" costs three times as much on CPU
    reference_layout: bool = False
    # Ports of further experts: name -> fields of nets.expert_ports.PortSpec.
    ports: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "axes_dims_rope", tuple(self.axes_dims_rope))
        width = self.num_attention_heads * self.attention_head_dim
        if self.hidden_size != width:
            _refuse(
                f"hidden_size is {self.hidden_size}, heads x head width is {width}",
                "make hidden_size = num_attention_heads * attention_head_dim",
            )
        if len(self.axes_dims_rope) != 3 or sum(self.axes_dims_rope) != self.attention_head_dim:
            _refuse(
                f"axes_dims_rope {self.axes_dims_rope} does not divide a head of "
                f"{self.attention_head_dim}",
                "give three even numbers whose sum is attention_head_dim",
            )
        if any(dim % 2 or dim <= 0 for dim in self.axes_dims_rope):
            _refuse(
                f"axes_dims_rope {self.axes_dims_rope} has an odd or empty axis",
                "rotate pairs: use even widths",
            )
        for name in _POSITIVE:
            if getattr(self, name) <= 0:
                _refuse(f"{name} is {getattr(self, name)}", f"give a positive {name}")
        if self.inpaint_channels < 0:
            _refuse(
                f"inpaint_channels is {self.inpaint_channels}",
                "give 0, or the channels beside the latents",
            )
        if self.num_double_layers < 0 or self.num_single_layers < 0:
            _refuse(
                "a negative number of blocks",
                "give num_double_layers and num_single_layers of 0 or more",
            )
        if self.sol_hidden_dim < 2:
            _refuse(
                f"sol_hidden_dim is {self.sol_hidden_dim}",
                "give at least 2: the temperature head uses half of it",
            )
        if not 0.0 <= self.sol_geometric_weight <= 1.0:
            _refuse(
                f"sol_geometric_weight is {self.sol_geometric_weight}",
                "give a share between 0 and 1",
            )
        if not 0.0 <= self.lune_dropout < 1.0:
            _refuse(f"lune_dropout is {self.lune_dropout}", "give a probability below 1")
        if self.sol_map not in SOL_MAPS:
            _refuse(f"sol_map is {self.sol_map!r}", f"choose one of {', '.join(SOL_MAPS)}")

        if self.gelu_approximation not in GELUS:
            _refuse(
                f"gelu_approximation is {self.gelu_approximation!r}",
                f"choose one of {', '.join(GELUS)}",
            )

    @property
    def token_width(self) -> int:
        """Width of one image token: a patch of the latents."""
        return self.in_channels * self.patch_size**2

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TinyFluxConfig:
        """From plain data; an unknown key is a ConfigError that names the nearest one."""
        keys = [f.name for f in fields(cls)]
        for key in values:
            if key not in keys:
                cure = did_you_mean(key, keys, f"keys are {', '.join(keys)}")
                _refuse(f"no key {key!r}", cure)
        return cls(**values)

    @classmethod
    def reference(cls, config: Mapping[str, Any]) -> TinyFluxConfig:
        """The published network of a v4.2, v4.1 or v3 configuration.

        Keys that it never used are ignored. v3 says use_expert_predictor, expert_dim,
        expert_hidden_dim, expert_dropout, and has neither a Sol prior nor T5 pooling. patch_size
        was a dead field: tokens were always single latent cells.
        """
        field_names = {f.name for f in fields(cls)} - set(COMPATIBLE)
        values: dict[str, Any] = {key: value for key, value in config.items() if key in field_names}
        if "use_expert_predictor" in config and not config.get("use_lune_expert", False):
            values["use_lune_expert"] = bool(config["use_expert_predictor"])
            legacy = {"expert_dim": "lune_expert_dim", "expert_hidden_dim": "lune_hidden_dim"}
            for old, new in {**legacy, "expert_dropout": "lune_dropout"}.items():
                if old in config:
                    values[new] = config[old]
            if "use_lune_expert" not in config:
                values = {"use_sol_prior": False, "use_t5_vec": False, **values}
        return cls(**{**values, **COMPATIBLE})

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data; `from_dict` is its inverse."""
        values = {**asdict(self), "axes_dims_rope": list(self.axes_dims_rope)}
        if not self.ports:  # files written before there were such ports lack the key too
            del values["ports"]
        return values


COMPATIBLE: dict[str, Any] = {
    "patch_size": 1,
    "num_sol_stats": 3,
    "time_scale": 1.0,
    "qk_norm": False,
    "per_head_temperature": False,
    "zero_init": False,
    "sol_map": "sigmoid",
    "text_position_ids": False,
    "gelu_approximation": "tanh",
    "reference_layout": True,
}


def _refuse(what: str, cure: str) -> None:
    raise ConfigError(what, where="TinyFluxConfig", cure=cure)
