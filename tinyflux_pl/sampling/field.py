"""The function that solvers integrate: denoiser, conditioning and guidance as dx/dt."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from tinyflux_pl.core.block_stack import require_blocks, skipping
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.protocols import Denoiser
from tinyflux_pl.core.transfer import to_device
from tinyflux_pl.core.types import Conditioning, TextEmbeddings
from tinyflux_pl.diffusion.guidance import Guidance
from tinyflux_pl.diffusion.guidance_rules import Momentum
from tinyflux_pl.diffusion.paths import data_share
from tinyflux_pl.diffusion.prediction import convert
from tinyflux_pl.sampling.step_cache import StepCache

NO_GUIDANCE = Guidance(scale=1.0)


def batched(cond: Conditioning, uncond: Conditioning) -> Conditioning:
    """Concatenate both, conditional rows first; a port that one side lacks is masked out there."""
    sides = (cond, uncond)
    ports: dict[str, Tensor] = {}
    masks: dict[str, Tensor] = {}
    for name in {**cond.ports, **uncond.ports}:
        like = cond.ports[name] if name in cond.ports else uncond.ports[name]
        values: list[Tensor] = []
        present: list[Tensor] = []
        for side in sides:
            count = len(side.text)
            if name in side.ports:
                everywhere = torch.full((count,), True, device=like.device)
                values.append(side.ports[name])
                present.append(side.port_mask.get(name, everywhere))
            else:
                values.append(like.new_zeros(count, *like.shape[1:]))
                present.append(torch.full((count,), False, device=like.device))
        ports[name] = torch.cat(values)
        masks[name] = torch.cat(present)
    if len(cond.references) != len(uncond.references):
        raise _one_sided("a reference")
    return Conditioning(
        TextEmbeddings.cat([cond.text, uncond.text]),
        ports,
        masks,
        _cat_pair("embedded guidance", cond.embedded_guidance, uncond.embedded_guidance),
        tuple(torch.cat(pair) for pair in zip(cond.references, uncond.references, strict=True)),
        _cat_pair("a picture to fill", cond.inpaint, uncond.inpaint),
        _cat_pair("a size", cond.size_ids, uncond.size_ids),
        _cat_pair("a target's places", cond.target_ids, uncond.target_ids),
        _cat_pair("a target's padding", cond.target_mask, uncond.target_mask),
        _cat_pair("a control map", cond.hint, uncond.hint),
    )


def _cat_pair(name: str, cond: Tensor | None, uncond: Tensor | None) -> Tensor | None:
    if cond is None and uncond is None:
        return None
    if cond is None or uncond is None:
        raise _one_sided(name)
    return torch.cat([cond, uncond])


def _one_sided(name: str) -> ConfigError:
    return ConfigError(
        f"{name} on one side only",
        where="sampling.field",
        cure="give it to both conditionings or none",
    )


class Field:
    """field(x, t) -> dx/dt on the denoiser's path, for any kind of prediction.

    Conditional and unconditional share one forward pass. `nfe` counts evaluations per image: 2
    where guidance needs both, 1 outside its interval or at scale 1, and one more where skip-layer
    guidance asks again. `times` are those of the steps, over which a curve is normalised. `cache`
    is installed on the denoiser, and learns the branch of each evaluation. The zero
    initialisation of CFG-Zero* is part of the loop. A field remembers APG's momentum: one for each
    batch.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        cond: Conditioning,
        uncond: Conditioning | None = None,
        guidance: Guidance = NO_GUIDANCE,
        times: Float[Tensor, " n"] | None = None,
        cache: StepCache | None = None,
    ) -> None:
        if uncond is None and guidance.scale != 1:
            raise ConfigError(
                f"guidance {guidance.scale} without an unconditional",
                where="sampling.field",
                cure="pass the text encoder's null(), or set guidance.scale=1",
            )
        if uncond is not None and len(uncond.text) != len(cond.text):
            raise ConfigError(
                f"{len(cond.text)} conditional rows, {len(uncond.text)} unconditional",
                where="sampling.field",
                cure="expand the unconditional to the batch",
            )
        self.blocks = denoiser.block_stack() if guidance.skip_layers else ()
        if guidance.skip_layers:
            require_blocks(self.blocks, guidance.skip_layers, denoiser.name)
        self.momentum = Momentum(guidance.momentum) if guidance.momentum else None
        levels = [] if times is None else data_share(denoiser.path, times).tolist()
        self.gain = guidance.gain_on(levels)
        self.cache = cache
        # of the last step, whose start is the last evaluation
        self.last_level = levels[-2] if len(levels) > 1 else 1.0
        self.denoiser = denoiser
        self.guidance = guidance
        self.cond = cond
        self.both = None if uncond is None else batched(cond, uncond)
        self.nfe = 0

    def __call__(
        self, x: Float[Tensor, "b c h w"], t: Float[Tensor, " b"]
    ) -> Float[Tensor, "b c h w"]:
        """dx/dt in x's dtype; t is equal for the batch and read here: keep it on the CPU."""
        path = self.denoiser.path
        level = float(data_share(path, t[:1])[0])
        scale = self.guidance.scale_at(level, self.gain)
        t = to_device(t, x.device)
        uncond = skipped = None
        if scale == 1 or self.both is None:
            self.nfe += 1
            cond = self._velocity(x, t, self.cond, "cond", level)
        else:
            self.nfe += 2
            cond, uncond = self._velocity(
                torch.cat([x, x]), torch.cat([t, t]), self.both, "both", level
            ).chunk(2)
        if self.guidance.skips_at(level):
            self.nfe += 1
            with skipping(self.blocks, self.guidance.skip_layers):
                skipped = self._velocity(x, t, self.cond, "skipped", level)
        if uncond is None and skipped is None:
            return cond
        return self.guidance.combine(
            cond, uncond, x, t, path, scale, skipped=skipped, momentum=self.momentum
        )

    def _velocity(
        self, x: Tensor, t: Tensor, cond: Conditioning, branch: str, level: float
    ) -> Tensor:
        if self.cache is not None:
            is_last = level >= self.last_level
            self.cache.begin(branch, forced=is_last, bypassed=branch == "skipped")
        output = self.denoiser(x, t, cond).sample.to(x.dtype)
        return convert(output, x, t, self.denoiser.path, self.denoiser.prediction, "velocity")
