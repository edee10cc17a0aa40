"""The base class of every denoiser: the contract's defaults, and refusal of what it cannot read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any, ClassVar

from torch import Tensor, nn

from tinyflux_pl.core.block_stack import StackBlock
from tinyflux_pl.core.errors import ConfigError, SpecMismatch
from tinyflux_pl.core.protocols import Path
from tinyflux_pl.core.specs import LatentSpec, TextSpec
from tinyflux_pl.core.types import Conditioning
from tinyflux_pl.denoisers.registry import WITH_INPAINTING, WITH_REFERENCES


class DenoiserModule(nn.Module):
    """A network with a path and specs (core.protocols.Denoiser). A family overrides these defaults
    where it differs, and implements `forward`, `config_dict` and the class method `from_config` for
    saved models.

    `patch_size`: latent cells along a side of a token. `image_size`: side in pixels that it draws
    by default; None leaves it to the user. `ports`: inputs that experts may fill. `reference_size`:
    the rule of data.images.resize_rules that fits reference pictures; None: it was not trained on
    any. `inpaint_channels`: channels of the masked picture and its mask, beside the latents.
    `reads_position_ids`: those of targets and conditions that are sequences. `overflows`: the
    reason to refuse float16. `weight_files`: files that its published weights were read from.
    `lora_targets`: patterns of the names of the linear layers that adapters are attached to.
    `component`: what diffusers calls the network in files of several.
    """

    name: ClassVar[str]
    lora_targets: ClassVar[tuple[str, ...]]
    component: ClassVar[str] = "transformer"
    path: Path
    latent_spec: LatentSpec
    text_spec: TextSpec
    prediction: str = "velocity"
    ports: tuple[str, ...] = ()
    patch_size: int = 1
    image_size: int | None = None
    reads_guidance: bool = False
    reads_references: bool = False
    reference_size: str | None = None
    inpaint_channels: int = 0
    reads_position_ids: bool = False
    overflows: str = ""
    weight_files: tuple[FilePath, ...] = ()

    def port_gates(self) -> dict[str, Tensor]:
        """The learned gates of its ports in (0, 1), scalars by port; most networks have none."""
        return {}

    def require_size(self, height: int, width: int) -> None:
        """Raise ConfigError for a picture larger than the network's position table; most have no
        bound.
        """

    @classmethod
    def shrunk(
        cls, node: dict[str, Any], latent_spec: LatentSpec, text_spec: TextSpec
    ) -> dict[str, Any]:
        """The arguments of its builder for a small network on random weights, in `simulate=true`;
        ConfigError where it draws no pictures.
        """
        cure = "simulate a model= that draws pictures"
        raise ConfigError("this network has no small form", where=f"model: {cls.name}", cure=cure)

    def block_stack(self) -> Sequence[StackBlock]:
        """Its transformer blocks in the order of their calls; none of a network whose blocks need
        one another.
        """
        return ()

    @classmethod
    def from_released(
        cls, config: dict[str, Any], path: Path, source: Mapping[str, Any]
    ) -> DenoiserModule:
        """The denoiser that `config_dict` described, with the published weights at `source`.

        ConfigError for a family whose networks are never read from a release.
        """
        raise ConfigError(
            f"no release of {cls.name} is known", where="model.weights", cure="init=CHECKPOINT"
        )

    @classmethod
    def original_layers(cls, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Names of the first published layout -> those of the layers that they stand for here, one
        below another, of these layers; {} where the names are the same.
        """
        return {}

    def require_readable(self, cond: Conditioning) -> None:
        """Raise for a port, a reference or an inpainting input that the network cannot read.

        SpecMismatch for ports; ConfigError for pictures, also where an inpainting network is given
        none.
        """
        if unknown := set(cond.ports) - set(self.ports):
            raise SpecMismatch(
                f"no such port: {', '.join(sorted(unknown))}",
                where=f"{self.name}, whose ports are: {', '.join(self.ports) or 'none'}",
                cure="build the denoiser with the experts that the run has, or train with "
                "experts=none",
            )
        channels = 0 if cond.inpaint is None else cond.inpaint.shape[1]
        if cond.references and not self.reads_references:
            what = "this network reads no reference pictures"
            cure = f"model={WITH_REFERENCES}"
        elif cond.references and channels:
            what = "references and a hole at once"
            cure = "give references alone, or a picture with its hole"
        elif channels == self.inpaint_channels:
            return
        elif not self.inpaint_channels:
            what = "this network fills no holes"
            cure = f"model={WITH_INPAINTING}, or leave image= and mask= out"
        elif not channels:
            what = "this network fills holes and was given none"
            cure = "give image=PICTURE mask=MASK"
        else:
            what = f"{channels} channels beside the latents for {self.inpaint_channels}"
            cure = "use one release's codec"
        raise ConfigError(what, where=self.name, cure=cure)
