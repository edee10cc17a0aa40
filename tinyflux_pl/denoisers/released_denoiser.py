"""The base class of denoisers around a network of diffusers: specs, path, rebuilding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from tinyflux_pl.core.errors import ConfigError, SpecMismatch
from tinyflux_pl.core.precision import check_dtype
from tinyflux_pl.core.protocols import Path
from tinyflux_pl.core.specs import LatentSpec, TextSpec, plain
from tinyflux_pl.core.types import Conditioning
from tinyflux_pl.denoisers.denoiser import DenoiserModule
from tinyflux_pl.denoisers.released import DiffusersNetwork, Source


class ReleasedDenoiser(DenoiserModule):
    """A network of a published family with the specs and the path that it was trained with.

    A family names its `released` class of diffusers and implements `forward`, and `network_widths`
    and `require_path` where they differ. Keyword options of its constructor are stored in
    `options`, plain data that comes back through `config_dict` and `from_config`. `image_size` is
    the side in pixels that the release draws by default. Raises SpecMismatch for specs or a path of
    another network, ConfigError for an image_size below 1.
    """

    released: ClassVar[DiffusersNetwork]
    patch_size = 2

    def __init__(
        self,
        net: Any,
        latent_spec: LatentSpec,
        text_spec: TextSpec,
        path: Path,
        image_size: int = 1024,
        **options: Any,
    ) -> None:
        super().__init__()
        self.net = net
        self.latent_spec = latent_spec
        self.text_spec = text_spec
        self.path = path
        if image_size < 1:
            cure = "a side in pixels, such as 1024"
            raise ConfigError(f"image_size is {image_size}", where="model.image_size", cure=cure)
        self.image_size = image_size
        self.options = options
        self.overflows = self.released.overflows
        self.weight_files = vars(net).get("weight_files", ())  # none of a newly initialised network
        self.require_path()
        self.require_widths()

    @classmethod
    def from_release(
        cls,
        latent_spec: LatentSpec,
        text_spec: TextSpec,
        path: Path,
        structure: dict[str, Any],
        source: Source,
        image_size: int | None = None,
        **options: Any,
    ) -> ReleasedDenoiser:
        """The denoiser around the network at `source`; `structure` is used where no config.json
        lies there.

        `image_size` None is the release's own: its sample_size, which the configurations of FLUX
        do not have, so that its builders always give a size.
        """
        net = cls.released.load(structure, **source)
        if image_size is None:
            image_size = net.config["sample_size"] * latent_spec.downsample
        return cls(net, latent_spec, text_spec, path, image_size, **options)

    @classmethod
    def shrunk(
        cls, node: dict[str, Any], latent_spec: LatentSpec, text_spec: TextSpec
    ) -> dict[str, Any]:
        """Random weights in the family's small structure."""
        structure = cls.small_structure(dict(node["structure"]), latent_spec, text_spec)
        random = {"weights": None, "random_weights": True, "dtype": "float32"}
        return {**node, **random, "structure": structure}

    @classmethod
    def small_structure(
        cls, structure: dict[str, Any], latent_spec: LatentSpec, text_spec: TextSpec
    ) -> dict[str, Any]:
        """The structure with few blocks of few channels, for these widths."""
        raise NotImplementedError

    def enable_gradient_checkpointing(self) -> None:
        """Keep only each block's input for the backward pass and compute the rest again."""
        self.net.enable_gradient_checkpointing()

    def config_dict(self) -> dict[str, Any]:
        """Plain JSON data that rebuilds this denoiser, without its path."""
        structure = self.released.keys(dict(self.net.config))
        return {
            "structure": {
                key: list(value) if isinstance(value, tuple) else value
                for key, value in structure.items()
            },
            "dtype": str(self.net.dtype).removeprefix("torch."),
            "latent_spec": plain(self.latent_spec),
            "text_spec": plain(self.text_spec),
            "image_size": self.image_size,
            **self.options,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], path: Path) -> ReleasedDenoiser:
        """The denoiser that `config_dict` describes, newly initialised."""
        dtype = check_dtype(config["dtype"], "dtype", cls.released.overflows)
        return cls._around(cls.released.random(config["structure"], dtype), config, path)

    @classmethod
    def from_released(
        cls, config: dict[str, Any], path: Path, source: Mapping[str, Any]
    ) -> ReleasedDenoiser:
        """The denoiser that `config_dict` described, with the weights of a release."""
        net = cls.released.load(config["structure"], dtype=config["dtype"], **source)
        return cls._around(net, config, path)

    @classmethod
    def _around(cls, net: Any, config: dict[str, Any], path: Path) -> ReleasedDenoiser:
        options = {
            k: v
            for k, v in config.items()
            if k not in ("structure", "dtype", "latent_spec", "text_spec")
        }
        return cls(
            net,
            LatentSpec(**config["latent_spec"]),
            TextSpec(**config["text_spec"]),
            path,
            **options,
        )

    def network_widths(self) -> dict[str, int]:
        """Widths by the network's configuration: latent_channels, text_width, and pooled_width if
        it is read.
        """
        return {
            "latent_channels": self.net.config["in_channels"],
            "text_width": self.net.config["joint_attention_dim"],
        }

    def require_widths(self) -> None:
        """Raise SpecMismatch for the first width that differs from the codec's or the text
        encoder's.
        """
        specified = {
            "latent_channels": self.latent_spec.channels,
            "text_width": self.text_spec.width,
            "pooled_width": self.text_spec.pooled,
        }
        for label, width in self.network_widths().items():
            if width != specified[label]:
                raise SpecMismatch(
                    f"the network's {label.replace('_', ' ')} is {width}, the part beside it gives "
                    f"{specified[label]}",
                    where=self.name,
                    cure="use the codec and the text encoders of the same release: codec.weights, "
                    "text.*",
                )

    def require_path(self) -> None:
        """Raise SpecMismatch unless the path is the straight one with noise at t = 1, as in the
        papers.
        """
        if (self.path.name, self.path.t_noise) != ("linear", 1.0):
            what = f"trained on straight paths with noise at t = 1, not on {self.path}"
            raise SpecMismatch(what, where=self.name, cure="path=linear_to_noise")

    def guidance(self, t: Tensor, cond: Conditioning) -> Tensor | None:
        """The guidance input (B,), by default the option `training_guidance`; None for networks
        without one.
        """
        if not self.reads_guidance:
            return None
        if cond.embedded_guidance is None:
            return torch.full_like(t, self.options["training_guidance"])
        return cond.embedded_guidance

    def full_text(self, cond: Conditioning) -> tuple[Tensor, Tensor]:
        """Tokens at their full length, since the padding is attended to, and pooled, in the
        network's type.
        """
        text = cond.text.padded(self.text_spec.length)
        return text.tokens.to(self.net.dtype), text.pooled.to(self.net.dtype)
