"""The base class of denoisers: the contract's defaults, and checks of the conditioning."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any, ClassVar

from torch import Tensor, nn

from tinyflux_pl.core.block_stack import StackBlock
from tinyflux_pl.core.divisible_inputs import DivisibleInput
from tinyflux_pl.core.errors import ConfigError, SpecMismatch
from tinyflux_pl.core.hint_forms import LATENTS, PIXELS
from tinyflux_pl.core.protocols import Path
from tinyflux_pl.core.specs import LatentSpec, TextSpec
from tinyflux_pl.core.types import Conditioning
from tinyflux_pl.denoisers.packing import patchify
from tinyflux_pl.denoisers.registry import WITH_INPAINTING, WITH_REFERENCES
from tinyflux_pl.nets.control_branch import ControlBranch


class DenoiserModule(nn.Module):
    """A network with a path and specs (core.protocols.Denoiser), with optional members' defaults.

    A family overrides what differs and implements `forward`, `config_dict` and the class method
    `from_config` for saved models. `patch_size`: latent cells along a side of a token.
    `image_size`: side in pixels that it draws by default; None leaves it to the user. `ports`:
    inputs that experts may fill. `reference_size`: the rule of data.images.resize_rules that fits
    reference pictures; None: it was not trained on any. `reference_parts`: parts of the names of
    modules that compute with references alone. `inpaint_channels`: channels of the masked
    picture and its mask, beside the latents. `reads_position_ids`: those of targets and conditions
    that are sequences. `overflows`: the reason to refuse float16. `weight_files`: files that its
    published weights were read from. `lora_targets`: patterns of the names of the linear layers
    that adapters are attached to. `component`: what diffusers calls the network in files of
    several. `hint_form`: the form in which a control branch of it reads maps (core.hint_forms).
    `stream_width`: channels of its blocks' streams, where the general branch (nets.control_branch)
    fits it. `layouts`: those of other libraries that `write_as` knows.
    """

    name: ClassVar[str]
    lora_targets: ClassVar[tuple[str, ...]]
    component: ClassVar[str] = "transformer"
    hint_form: ClassVar[str] = LATENTS
    layouts: ClassVar[tuple[str, ...]] = ()
    path: Path
    latent_spec: LatentSpec
    text_spec: TextSpec
    prediction: str = "velocity"
    ports: tuple[str, ...] = ()
    patch_size: int = 1
    image_size: int | None = None
    reads_guidance: bool = False
    reads_references: bool = False
    reference_parts: tuple[str, ...] = ()
    reference_size: str | None = None
    inpaint_channels: int = 0
    reads_position_ids: bool = False
    overflows: str = ""
    weight_files: tuple[FilePath, ...] = ()
    stream_width: int = 0

    @property
    def branch(self) -> Any | None:
        """The control branch (nets.control_branch, denoisers.released_control), if it has one."""
        return self._modules.get("control")

    def attach_control(self, depth: int | None) -> None:
        """Add the trainable control branch `control` for the first `depth` blocks.

        None: all blocks of the first kind. ConfigError for a network or a depth without such
        blocks.
        """
        blocks = self.block_stack()
        if not blocks or not self.stream_width or self.inpaint_channels:
            cure = "another model=, or one that does not inpaint"
            raise ConfigError(
                "no control branch fits this network", where=f"method: {self.name}", cure=cure
            )
        alike = [block for block in blocks if block.streams == blocks[0].streams]
        depth = self.checked_depth(depth, len(alike), len(alike))
        channels = self.latent_spec.channels * self.patch_size**2
        is_last = depth == len(blocks)
        self.control = ControlBranch(alike[:depth], channels, self.stream_width, is_last)

    def checked_depth(self, depth: int | None, default: int, most: int) -> int:
        """The number of copied blocks; ConfigError for one that the network does not have."""
        depth = default if depth is None else depth
        if not 1 <= depth <= most:
            raise ConfigError(
                f"depth is {depth}", where="method.depth", cure=f"from 1 to {most} blocks, or null"
            )
        return depth

    def guided(self, predict: Callable[[], Any], hint: Tensor | None) -> Any:
        """The output of `predict`, which calls the network, with a generic control branch.

        The branch reads the latents of the map.
        """
        if self.branch is None:
            return predict()
        tokens = None if hint is None else patchify(hint, self.patch_size)
        return self.branch.guided(predict, tokens)

    def hint_shape(self, height: int, width: int) -> tuple[int, int, int] | None:
        """(C, H, W) of the map beside latents of these sides; None without a control branch."""
        if self.branch is None:
            return None
        if self.hint_form == PIXELS:
            return 3, height * self.latent_spec.downsample, width * self.latent_spec.downsample
        return self.latent_spec.channels, height, width

    def enable_gradient_checkpointing(self) -> None:
        """Keep only the input of each block of the control branch; a family adds its own."""
        if self.branch is not None:
            self.branch.enable_gradient_checkpointing()

    def port_gates(self) -> dict[str, Tensor]:
        """The learned gates of its ports in (0, 1), scalars by port; most networks have none."""
        return {}

    def write_as(self, layout: str, folder: FilePath) -> nn.Module:
        """Write the network in one of `layouts`; returns it as that library loads it."""
        raise self.no_layout(layout)

    def no_layout(self, layout: str) -> ConfigError:
        """The error for an unsupported layout."""
        cure = f"{self.name} is written as: {', '.join(self.layouts) or 'none'}"
        return ConfigError(f"no layout {layout!r}", where="layout", cure=cure)

    def require_size(self, height: int, width: int) -> None:
        """Raise ConfigError for an image beyond the position table; most networks have no bound."""

    def require_trainable(self) -> None:
        """Raise ConfigError for a frozen part that must train; most networks have none."""

    @classmethod
    def shrunk(
        cls, node: dict[str, Any], latent_spec: LatentSpec, text_spec: TextSpec
    ) -> dict[str, Any]:
        """Builder arguments of a small random network for `simulate=true`.

        ConfigError if the network generates no images.
        """
        cure = "simulate a model= that draws pictures"
        raise ConfigError("this network has no small form", where=f"model: {cls.name}", cure=cure)

    def block_stack(self) -> Sequence[StackBlock]:
        """Transformer blocks in call order; empty if blocks cannot be skipped."""
        return ()

    def divisible_inputs(self) -> Sequence[DivisibleInput]:
        """Inputs of linear layers that can be divided in the layers before; empty if unknown."""
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
        """Layer names of the first published layout -> layers here that they were split into.

        The parts are stacked by rows. Empty where the names are the same.
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
        self._require_map(cond)
        channels = 0 if cond.inpaint is None else cond.inpaint.shape[1]
        if cond.references and not self.reads_references:
            what = "this network reads no reference pictures"
            cure = f"model={WITH_REFERENCES}"
        elif cond.references and channels:
            what = "references and a masked picture at once"
            cure = "give references alone, or a picture with its mask"
        elif channels == self.inpaint_channels:
            return
        elif not self.inpaint_channels:
            what = "this network does not inpaint"
            cure = f"model={WITH_INPAINTING}, or leave image= and mask= out"
        elif not channels:
            what = "this network inpaints and was given no masked picture"
            cure = "give image=PICTURE mask=MASK"
        else:
            what = f"{channels} channels beside the latents for {self.inpaint_channels}"
            cure = "use one release's codec"
        raise ConfigError(what, where=self.name, cure=cure)

    def _require_map(self, cond: Conditioning) -> None:
        """Raise ConfigError for a map that nothing reads, and for a branch without one."""
        if (cond.hint is None) != (self.branch is None):
            what, cure = "a control branch was given no map", "control=MAP, a picture"
            if self.branch is None:
                what, cure = "this network reads no maps", "draw from a run of method=controlnet"
            raise ConfigError(what, where=self.name, cure=cure)
        if cond.hint is not None and cond.references:
            cure = "give the map alone"
            raise ConfigError("references beside a map", where=self.name, cure=cure)
