"""diffusers' network classes as released: structure from data, weights strictly from files."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, TypedDict

import torch

from tinyflux_pl.core.errors import CheckpointMismatch, ConfigError
from tinyflux_pl.core.nearest_name import did_you_mean
from tinyflux_pl.core.precision import check_dtype
from tinyflux_pl.core.unused_settings import name_unread
from tinyflux_pl.denoisers import attention_backend as attention_backend_of
from tinyflux_pl.denoisers import gguf_linear
from tinyflux_pl.weights import gguf_file, key_layout, known_releases, load_release
from tinyflux_pl.weights.key_diff import shapes_of


class Source(TypedDict, total=False):
    """Source and form of a released network: the options of `DiffusersNetwork.load`.

    `weights` is a diffusers folder, a single file in either layout, or a repository with its
    40-digit `revision`. Of a folder's variants (fp16, non_ema, ...) `variant` is read. `packed`
    keeps the blocks of a GGUF file in linear layers (gguf_linear); else they are multiplied out.
    """

    weights: str | None
    revision: str | None
    variant: str | None
    dtype: str
    attention_backend: str
    random_weights: bool
    packed: bool | None


@dataclass(frozen=True)
class DiffusersNetwork:
    """A family's network class of diffusers, its place in a release, and its limits.

    `kind` is the class's name, `subfolder` its place in a pipeline's folder, `original` the layout
    of single files. `overflows` says why float16 is refused ("" where it is fine).
    """

    kind: str
    subfolder: str = "transformer"
    original: key_layout.KeyLayout | None = None
    overflows: str = ""
    unread: tuple[str, ...] = ()  # patterns of keys in files that are no weights of the network

    def load(
        self,
        structure: dict[str, Any],
        *,
        weights: str | None = None,
        revision: str | None = None,
        variant: str | None = None,
        dtype: str = "bfloat16",
        attention_backend: str = "native",
        random_weights: bool = False,
        packed: bool | None = None,
    ) -> Any:
        """Build the network, in training mode.

        The config.json beside the weights describes it; where there is none, `structure` does.
        Without weights it is random with `random_weights`, else ConfigError; where the default
        device is meta it is a skeleton, and no weight is read. ConfigError for `packed` where the
        weights are no GGUF file. Otherwise raises as weights.load_release and gguf_linear do.
        """
        torch_dtype = check_dtype(dtype, "model.dtype", self.overflows)
        source = (
            None
            if weights is None
            else load_release.find(weights, revision, self.subfolder, variant=variant)
        )
        if packed:
            _require_blocks(source)
        keep = gguf_linear.keep_blocks if packed else None
        config = None if source is None else self._config_file(source)
        where = None if config is None or source is None else f"config.json of {source.where}"
        settings = self.keys(structure if config is None else config, where)
        if source is not None and any(
            settings.get(key, value) != value for key, value in structure.items()
        ):
            file_shapes = shapes_of(self.skeleton(settings).state_dict())
            expected_shapes = shapes_of(self.skeleton(structure).state_dict())
            known_releases.require_same(expected_shapes, file_shapes, source.where)
        if torch.get_default_device().type == "meta":
            outline: Any = self._in(self.skeleton(settings), torch_dtype)
            if source is not None and keep is not None:
                read_as = self._read_as(settings)
                with known_releases.recognised(outline, source):
                    load_release.fill_outline(outline, source, torch_dtype, keep, *read_as)
            outline.weight_files = () if source is None else source.weights.files
            return outline
        if source is not None:
            net: Any = self.skeleton(settings)
            with known_releases.recognised(net, source):
                load_release.fill(net, source, torch_dtype, *self._read_as(settings), keep)
        elif random_weights:
            net = self.random(settings, torch_dtype)
        else:
            raise ConfigError(
                f"no weights for {self.kind}",
                where="model.weights",
                cure="model.weights=FOLDER or FILE.safetensors (model.random_weights=true draws "
                "noise, for trials)",
            )
        attention_backend_of.choose(net, attention_backend)
        net.weight_files = () if source is None else source.weights.files
        return net

    def _read_as(self, settings: dict[str, Any]) -> tuple[Any, ...]:
        """Layout of keys, structure, keys that are not read, and modules that stay in fp32."""
        unread = (*(self._class()._keys_to_ignore_on_load_unexpected or ()), *self.unread)
        return self.original, settings, unread, self.kept_in_fp32()

    def _config_file(self, source: load_release.WeightSource) -> dict[str, Any] | None:
        """The config.json next to the weights; for a named file only if it is of this class."""
        config = source.config or {}
        kind = config.get("_class_name") or next(iter(config.get("architectures") or ()), self.kind)
        if kind == self.kind:
            return source.config
        if source.named:
            return None
        what = f"config.json describes a {kind}, not a {self.kind}"
        raise CheckpointMismatch(
            what, where=source.where, cure=known_releases.cure(source.shapes())
        )

    def skeleton(self, structure: dict[str, Any]) -> Any:
        """The network without values, on the meta device."""
        with torch.device("meta"):
            return self._class()(**self.keys(structure))

    def random(self, structure: dict[str, Any], dtype: torch.dtype) -> Any:
        """The network newly initialised."""
        return self._in(self._class()(**self.keys(structure)), dtype)

    def keys(self, structure: dict[str, Any], file: str | None = None) -> dict[str, Any]:
        """Arguments of the class's constructor; diffusers' private keys are left out.

        An unknown key is a ConfigError naming the nearest; in a config.json, which another version
        of diffusers may have written (`file` says where it lies), it is left out and named.
        """
        accepted = list(inspect.signature(self._class().__init__).parameters)[1:]
        arguments = {key: value for key, value in structure.items() if not key.startswith("_")}
        for key in [key for key in arguments if key not in accepted]:
            if file is None:
                cure = did_you_mean(key, accepted, f"keys are {', '.join(accepted)}")
                raise ConfigError(f"{self.kind} has no {key!r}", where="model.structure", cure=cure)
            arguments.pop(key)
            name_unread([key], file)
        return arguments

    def _in(self, net: Any, dtype: torch.dtype) -> Any:
        """The network in a dtype, except for modules that diffusers keeps in fp32."""
        torch.nn.Module.to(net, dtype)  # diffusers' method only warns about fp32 modules
        for name, module in net.named_modules():
            if name.rpartition(".")[2] in self.kept_in_fp32():
                module.float()
        return net

    def kept_in_fp32(self) -> tuple[str, ...]:
        """Names of modules that diffusers keeps in fp32 in networks of another dtype."""
        wide_modules = self._class()._keep_in_fp32_modules or ()
        return (wide_modules,) if isinstance(wide_modules, str) else tuple(wide_modules)

    def _class(self) -> Any:
        import diffusers

        return getattr(diffusers, self.kind)


def _require_blocks(source: load_release.WeightSource | None) -> None:
    """Raise ConfigError unless the weights are a GGUF file."""
    if source is None or not all(gguf_file.is_gguf(file) for file in source.weights.files):
        what = "the blocks of a GGUF file can stay packed, and these weights are none"
        where = gguf_linear.WHERE
        raise ConfigError(what, where=where, cure=f"{where}=null, or model.weights=FILE.gguf")
