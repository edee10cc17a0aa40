"""Low-rank adapters of linear layers by peft (LoRA, Hu et al. 2021; DoRA, Liu et al. 2024; LoKr).

y = W x + (alpha / rank) B A x, B zero at the start, so that step 0 is the base.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import nn

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.methods import peft_layers
from tinyflux_pl.methods.base_precision import check_format
from tinyflux_pl.methods.layer_patterns import linear_layers
from tinyflux_pl.methods.layer_plan import LayerPlan, Target, plan_layers
from tinyflux_pl.methods.lora_presets import preset_targets
from tinyflux_pl.methods.method import Method

RANK = 16  # where neither the configuration nor a preset names one


class LoRA(Method):
    """The base frozen in its own dtype, and fp32 adapters beside its linear layers.

    `targets` are patterns of layer names, or mappings with a pattern and values of its own
    (methods.layer_plan); None: the family's `lora_targets`. `preset` names one of TinyFlux's sets
    of targets instead. `alpha` None is the rank: a strength of 1. `rslora` scales by
    alpha / sqrt(rank); `dora` learns the length of each row apart from its direction; `lokr`
    multiplies by Kronecker's product instead of a matrix product. `base_precision` is no part of
    `config`: adapters belong to the plain base.
    """

    name = "lora"
    needs_base = True
    adds_to_base = True
    exports_adapter = True

    def __init__(
        self,
        rank: int | None = None,
        alpha: float | None = None,
        targets: Sequence[Target] | None = None,
        preset: str | None = None,
        dropout: float = 0.0,
        rslora: bool = False,
        dora: bool = False,
        lokr: bool = False,
        init: Literal["kaiming", "gaussian"] = "kaiming",
        base_precision: str | None = None,
    ) -> None:
        self.base_precision = check_format(base_precision)
        self.options = {
            "rank": rank,
            "alpha": alpha,
            "targets": None if targets is None else [_plain(target) for target in targets],
            "preset": preset,
            "dropout": dropout,
            "rslora": rslora,
            "dora": dora,
            "lokr": lokr,
            "init": init,
        }
        self.targets, self.preset = targets, preset
        default_rank = RANK if rank is None else rank
        default_alpha = float(default_rank) if alpha is None else alpha
        self.default = LayerPlan(default_rank, default_alpha, dropout=dropout)
        self.kind = peft_layers.Kind(rslora, dora, lokr, init)
        self._network: weakref.ref[nn.Module] | None = None
        self.reads_weights = "DoRA and LoKr compute with them" if dora or lokr else ""
        if preset is not None and (targets is not None or rank is not None or alpha is not None):
            raise ConfigError(
                "a preset has targets, ranks and strengths of its own",
                where="method.preset",
                cure="leave targets, rank and alpha at null, or the preset",
            )
        if preset is not None:
            preset_targets(preset)  # an unknown one is told at once

    def plan(self, denoiser: Any) -> dict[str, LayerPlan]:
        """Name within the network -> plan of each adapted layer, before it is adapted."""
        layers = linear_layers(denoiser)
        if self.targets is not None:
            return plan_layers(layers, self.targets, self.default)
        ready = denoiser.lora_targets if self.preset is None else preset_targets(self.preset)
        return plan_layers(layers, ready, self.default, all_must_hit=False)

    def prepare(self, denoiser: nn.Module) -> None:
        """Freeze every parameter and attach fp32 adapters, which train."""
        layers = linear_layers(denoiser)
        full_names = {layers[name]: plan for name, plan in self.plan(denoiser).items()}
        denoiser.requires_grad_(False)
        peft_layers.attach(denoiser, full_names, self.kind)
        # weak: the network of a dry run is freed before that of the run is built
        self._network = weakref.ref(denoiser)
        self._rates = {
            name: plan.lr_scale
            for layer, plan in full_names.items()
            for name in peft_layers.parameter_names(denoiser, layer)
            if plan.lr_scale != 1
        }

    def adapted(self) -> nn.Module | None:
        """The network; its adapters are apart from its base's weights."""
        return None if self._network is None else self._network()

    def saved(self, denoiser: nn.Module) -> frozenset[str]:
        """The adapters alone."""
        return frozenset(name for name, p in denoiser.named_parameters() if p.requires_grad)

    def rates(self, denoiser: nn.Module) -> Mapping[str, float]:
        """The factors of targets with an lr_scale."""
        return self._rates

    def config(self) -> dict[str, Any]:
        """The options as they were given."""
        return dict(self.options)


def _plain(target: Target) -> Target:
    return target if isinstance(target, str) else dict(target)
