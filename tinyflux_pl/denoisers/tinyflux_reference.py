"""Published TinyFlux weights (v4.2, v4.1, v3) as this package's network, and back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.nets.tinyflux import TinyFluxDeep
from tinyflux_pl.nets.tinyflux_config import TinyFluxConfig
from tinyflux_pl.weights.key_diff import require_match, shapes_of


class ReferenceTinyFlux(TinyFluxDeep):
    """A published network that also accepts and returns v3's flat expert information.

    That is the argument `expert_features` and the keys of `forward`.
    """

    def forward(
        self, *args: Any, expert_features: Float[Tensor, "b e"] | None = None, **inputs: Any
    ) -> Float[Tensor, "b n c"] | tuple[Tensor, dict[str, Any]]:
        """As TinyFluxDeep, with expert_signal, expert_pred and expert_used added.

        They are None without Lune.
        """
        if expert_features is not None and inputs.get("lune_features") is None:
            inputs["lune_features"] = expert_features
        answer = super().forward(*args, **inputs)
        if isinstance(answer, Tensor):
            return answer
        out, info = answer
        expert_info = info["lune"] or {}
        keys = ("expert_signal", "expert_pred", "expert_used")
        return out, info | {key: expert_info.get(key) for key in keys}


def load_reference(
    config: Mapping[str, Any], state_dict: Mapping[str, Tensor]
) -> ReferenceTinyFlux:
    """The network equal to a published one, in evaluation mode and fp32.

    `config` and the keys of `state_dict` are the original ones. Raises CheckpointMismatch, naming
    missing, unexpected and mis-shaped keys, before any weight is read.
    """
    network = TinyFluxConfig.reference(config)
    weights = _renamed(state_dict)
    if (
        "use_lune_expert" not in config
        and network.use_lune_expert
        and "use_expert_predictor" in config
    ):
        # v3 read its guidance only where it had no expert.
        network = TinyFluxConfig.reference({**config, "guidance_embeds": False})
        weights = {
            key: value for key, value in weights.items() if not key.startswith("guidance_in.")
        }
    if not network.use_sol_prior:  # v4.1 held these without ever reading them
        weights = {
            key: value for key, value in weights.items() if ".attn.spatial_to_mod." not in key
        }
    model = ReferenceTinyFlux(network)
    cure = "give the config.json saved with these weights"
    require_match(
        shapes_of(model.state_dict()), shapes_of(weights), "TinyFlux reference weights", cure
    )
    model.load_state_dict(weights)
    return model.eval()


def to_reference_keys(model: nn.Module) -> dict[str, Tensor]:
    """Convert the weights to the published keys of v4.2, and v4.1's guidance_in if present.

    `model` is a network of `TinyFluxConfig.reference` or a denoiser around one; ConfigError for
    another.
    """
    net = model if isinstance(model, TinyFluxDeep) else dict(model.named_children()).get("net")
    if not isinstance(net, TinyFluxDeep) or not net.config.reference_layout:
        raise ConfigError(
            "only a network in the published layout has published keys",
            where="to_reference_keys",
            cure="train with model=deep_v42 (denoisers.tinyflux_published.build_published)",
        )
    return {key: value.detach().clone() for key, value in net.state_dict().items()}


def _renamed(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """v4.2 names and shapes: no compile prefix, v3's predictor renamed, its gate [1] a scalar."""
    renamed = {}
    for key, value in state_dict.items():
        key = re.sub(r"(^|\.)_orig_mod\.", r"\1", key)
        if key.endswith(".sin_basis"):  # a constant table of early versions, computed here
            continue
        key = re.sub(r"^expert_predictor\.", "lune_predictor.", key)
        renamed[key] = (
            value.reshape(())
            if key == "lune_predictor.expert_gate" and value.numel() == 1
            else value
        )
    return renamed
