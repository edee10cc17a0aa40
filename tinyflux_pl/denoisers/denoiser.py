"""The base of every denoiser: what it can read, answered once for all, and a refusal of what it cannot."""

from __future__ import annotations

from pathlib import Path as Files
from typing import ClassVar

from torch import nn

from tinyflux_pl.core.errors import ConfigError, SpecMismatch
from tinyflux_pl.core.protocols import Path
from tinyflux_pl.core.specs import LatentSpec, TextSpec
from tinyflux_pl.core.types import Conditioning


class DenoiserModule(nn.Module):
    """A network with a path and specs (core.protocols.Denoiser). A family overrides what differs from these answers,
    and gives `forward`, `config_dict` and the class method `from_config` for saved models.

    `patch_size`: latent cells along a side of a token. `image_size`: pixels along a side that it draws by default;
    None leaves it to the user. `reference_size`: the rule of data.reference_pictures that fits reference pictures;
    None: it was not trained on any. `inpaint_channels`: of a picture with a hole beside the latents. `overflows`:
    why float16 is refused. `reads_position_ids`: of the tokens of a target and of a condition (sequences).
    `weight_files`: files that its published weights were read from.
    """

    name: ClassVar[str]
    lora_targets: ClassVar[tuple[str, ...]]
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
    weight_files: tuple[Files, ...] = ()

    def require_size(self, height: int, width: int) -> None:
        """Raise ConfigError for a picture of more pixels than the network has places for; most have no bound."""

    def require_readable(self, cond: Conditioning) -> None:
        """Raise for a port, a reference or a picture with a hole that the network has no input for.

        SpecMismatch for ports; ConfigError for pictures, also where a network that fills holes is given none.
        """
        if unknown := set(cond.ports) - set(self.ports):
            raise SpecMismatch(
                f"no such port: {', '.join(sorted(unknown))}",
                where=f"{self.name}, whose ports are: {', '.join(self.ports) or 'none'}",
                cure="build the denoiser with the experts that the run has, or train with experts=none",
            )
        given = 0 if cond.inpaint is None else cond.inpaint.shape[1]
        if cond.references and not self.reads_references:
            what, cure = "this network reads no reference pictures", "model=flux1_kontext, flux2_dev, flux3 or tiny"
        elif cond.references and given:
            what, cure = "references and a hole at once", "give references alone, or a picture with its hole"
        elif given == self.inpaint_channels:
            return
        elif not self.inpaint_channels:
            what, cure = "this network fills no holes", "model=flux1_fill, or leave image= and mask= out"
        elif not given:
            what, cure = "this network fills holes and was given none", "give image=PICTURE mask=MASK"
        else:
            what, cure = f"{given} channels beside the latents for {self.inpaint_channels}", "use one release's codec"
        raise ConfigError(what, where=self.name, cure=cure)
