"""What every denoiser around a network of diffusers shares: its seams, its clock, how it is rebuilt."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from tinyflux_pl.core.errors import SpecMismatch
from tinyflux_pl.core.precision import check_dtype
from tinyflux_pl.core.protocols import Path
from tinyflux_pl.core.specs import LatentSpec, TextSpec, plain
from tinyflux_pl.core.types import Conditioning
from tinyflux_pl.denoisers.denoiser import DenoiserModule
from tinyflux_pl.denoisers.released import ReleasedNet


class ReleasedDenoiser(DenoiserModule):
    """A network of a published family with the specs and the path that it was made for.

    A family names its `released` class of diffusers and gives `forward`. Keyword options of its constructor
    are kept in `options`, plain data, and come back through `config_dict` and `from_config`. `image_size` is
    the side in pixels that the release draws by default.
    """

    released: ClassVar[ReleasedNet]
    patch_size = 2

    def __init__(
        self, net: Any, latent_spec: LatentSpec, text_spec: TextSpec, path: Path, image_size: int = 1024, **options: Any
    ) -> None:
        super().__init__()
        self.net, self.latent_spec, self.text_spec, self.path = net, latent_spec, text_spec, path
        self.image_size, self.options, self.overflows = image_size, options, self.released.overflows
        self.weight_files = vars(net).get("weight_files", ())  # none of a network that is newly initialised

    def enable_gradient_checkpointing(self) -> None:
        """Keep only each block's input for the backward pass and compute the rest again."""
        self.net.enable_gradient_checkpointing()

    def config_dict(self) -> dict[str, Any]:
        """What rebuilds this denoiser, its path apart: plain JSON data."""
        told = self.released.keys(dict(self.net.config))
        return {
            "structure": {key: list(value) if isinstance(value, tuple) else value for key, value in told.items()},
            "dtype": str(self.net.dtype).removeprefix("torch."),
            "latent_spec": plain(self.latent_spec),
            "text_spec": plain(self.text_spec),
            "image_size": self.image_size,
            **self.options,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], path: Path) -> ReleasedDenoiser:
        """The denoiser that `config_dict` describes, newly initialised."""
        options = {k: v for k, v in config.items() if k not in ("structure", "dtype", "latent_spec", "text_spec")}
        net = cls.released.random(config["structure"], check_dtype(config["dtype"], "dtype", cls.released.overflows))
        return cls(net, LatentSpec(**config["latent_spec"]), TextSpec(**config["text_spec"]), path, **options)

    def require_fit(self, **pairs: tuple[int, int]) -> None:
        """Raise SpecMismatch for the first pair (of the network, of the part beside it) that differs."""
        for what, (own, given) in pairs.items():
            if own != given:
                raise SpecMismatch(
                    f"the network's {what.replace('_', ' ')} is {own}, the part beside it gives {given}",
                    where=self.name,
                    cure="use the codec and the text encoders of the same release: codec.weights, text.*",
                )

    def require_noise_at_one(self) -> None:
        """Raise SpecMismatch unless the path is the straight one with noise at t = 1, as in the papers."""
        if (self.path.name, self.path.t_noise) != ("linear", 1.0):
            what = f"trained on straight paths with noise at t = 1, not on {self.path}"
            raise SpecMismatch(what, where=self.name, cure="path=linear_to_noise")

    def guidance(self, t: Tensor, cond: Conditioning) -> Tensor | None:
        """The guidance input (B,): as told, else the option `training_guidance`; None for networks without one."""
        if not self.reads_guidance:
            return None
        told = cond.embedded_guidance
        return torch.full_like(t, self.options["training_guidance"]) if told is None else told

    def full_text(self, cond: Conditioning) -> tuple[Tensor, Tensor]:
        """Tokens at their full length, since the padding is attended to, and pooled, in the network's type."""
        text = cond.text.padded(self.text_spec.length)
        return text.tokens.to(self.net.dtype), text.pooled.to(self.net.dtype)
