"""The base class of denoisers around a network of diffusers: specs, path, rebuilding."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from tinyflux_pl.core import files
from tinyflux_pl.core.errors import ConfigError, SpecMismatch
from tinyflux_pl.core.precision import check_dtype
from tinyflux_pl.core.protocols import Path
from tinyflux_pl.core.specs import LatentSpec, TextSpec, plain
from tinyflux_pl.core.types import Conditioning
from tinyflux_pl.denoisers import gguf_linear
from tinyflux_pl.denoisers.denoiser import DenoiserModule
from tinyflux_pl.denoisers.released import DiffusersNetwork, Source

DIFFUSERS, BFL = "diffusers", "bfl"


class ReleasedDenoiser(DenoiserModule, ABC):
    """A network of a published family with the specs and the path that it was trained with.

    A family names its `released` class of diffusers and implements `forward`, and `network_widths`
    and `require_path` where they differ. Keyword options of its constructor are stored in
    `options`, plain data that comes back through `config_dict` and `from_config`. `image_size` is
    the side in pixels that the release draws by default. Raises SpecMismatch for specs or a path of
    another network, ConfigError for an image_size below 1.
    """

    released: ClassVar[DiffusersNetwork]
    layouts = (DIFFUSERS,)
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
        """Build the denoiser from the network at `source`.

        `structure` is used if there is no config.json. `image_size` None is the release's own: its
        sample_size, which the configurations of FLUX do not have, so that its builders always give
        a size.
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
    @abstractmethod
    def small_structure(
        cls, structure: dict[str, Any], latent_spec: LatentSpec, text_spec: TextSpec
    ) -> dict[str, Any]:
        """The structure with few blocks of few channels, for these widths."""

    def write_as(self, layout: str, folder: FilePath) -> nn.Module:
        """diffusers: a folder as in its pipelines; bfl: one file under the original keys."""
        gguf_linear.require_numbers(self.net, f"the layout {layout}")
        if layout == DIFFUSERS:
            inner = folder / self.released.subfolder
            self.net.save_pretrained(inner, safe_serialization=True)
            return type(self.net).from_pretrained(
                inner, torch_dtype=self.net.dtype, use_safetensors=True, local_files_only=True
            )
        file = folder / "model.safetensors"
        files.write_tensors(file, self.original_tensors())
        dtype = str(self.net.dtype).removeprefix("torch.")
        return self.released.load(dict(self.net.config), weights=str(file), dtype=dtype)

    def original_tensors(self) -> dict[str, Tensor]:
        """The weights under the keys of the release's own files, where `layouts` has bfl."""
        raise self.no_layout(BFL)

    def enable_gradient_checkpointing(self) -> None:
        """Keep only each block's input for the backward pass and compute the rest again."""
        super().enable_gradient_checkpointing()
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
        """Widths from the network's configuration.

        latent_channels, text_width, and pooled_width if it is read.
        """
        return {
            "latent_channels": self.net.config["in_channels"],
            "text_width": self.net.config["joint_attention_dim"],
        }

    def require_widths(self) -> None:
        """Raise SpecMismatch for a width that differs from the codec's or text encoder's."""
        specified = {
            "latent_channels": self.latent_spec.channels,
            "text_width": self.text_spec.width,
            "pooled_width": self.text_spec.pooled,
        }
        for label, width in self.network_widths().items():
            if width != specified[label]:
                raise SpecMismatch(
                    f"the network's {label.replace('_', ' ')} is {width}, the other part gives "
                    f"{specified[label]}",
                    where=self.name,
                    cure="use the codec and the text encoders of the same release: codec.weights, "
                    "text.*",
                )

    def require_path(self) -> None:
        """Raise SpecMismatch unless the path is linear with noise at t = 1, as in the papers."""
        if (self.path.name, self.path.t_noise) != ("linear", 1.0):
            what = f"trained on straight paths with noise at t = 1, not on {self.path}"
            raise SpecMismatch(what, where=self.name, cure="path=linear_to_noise")

    def guidance(self, t: Tensor, cond: Conditioning) -> Tensor | None:
        """The guidance input (B,), `training_guidance` by default; None if it is not read."""
        if not self.reads_guidance:
            return None
        if cond.embedded_guidance is None:
            return torch.full_like(t, self.options["training_guidance"])
        return cond.embedded_guidance

    @property
    def net_dtype(self) -> torch.dtype:
        """The network's dtype: of its first floating-point parameter that may leave fp32.

        Diffusers' property searches every module for hooks before, which takes milliseconds.
        """
        fp32_modules = self.released.kept_in_fp32()
        return next(
            parameter.dtype
            for name, parameter in self.net.named_parameters()
            if parameter.is_floating_point() and not any(part in name for part in fp32_modules)
        )

    def full_text(self, cond: Conditioning) -> tuple[Tensor, Tensor]:
        """Tokens and pooled text in the network's dtype, at full length: padding is attended to."""
        text = cond.text.padded(self.text_spec.length)
        return text.tokens.to(self.net_dtype), text.pooled.to(self.net_dtype)
