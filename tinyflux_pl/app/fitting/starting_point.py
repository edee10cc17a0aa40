"""The weights that a run starts from: of `init`, or of the release that `model` names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyflux_pl.config.schema import Train
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.rank import is_rank_zero

if TYPE_CHECKING:
    from tinyflux_pl.checkpoints.directory import Checkpoint
    from tinyflux_pl.methods.method import Method

CLASS_PICTURES = "tinyflux_pl.data.records.prompted.ClassPictures"
PAIRED = "tinyflux_pl.data.records.image_pairs.PairedImages"


def check(config: Train, method: Method, trains: str) -> None:
    """Raise ConfigError for weights given twice, or missing for a method that needs them.

    `trains` is the kind of module; only denoisers take a method that adds to them.
    """
    from tinyflux_pl.methods import base_precision

    _check_class(config)
    released = config.model.get("weights")
    if config.init is not None and released:
        raise ConfigError(
            "init= and model.weights= both name weights to start from",
            where="init",
            cure="give one of them",
        )
    if config.init is not None and not Path(config.init).expanduser().exists():
        cure = "a run's folder, a checkpoint's, or a .safetensors file"
        raise ConfigError(f"there is no {config.init}", where="init", cure=cure)
    base_precision.check_blocks(config.model, method)
    if not method.needs_base:
        return
    if trains != "denoiser":
        cure = "method=full"
        raise ConfigError(f"method={method.name} of an {trains}", where="method", cure=cure)
    if config.init is None and not released:
        options = "init=outputs/RUN"
        if "weights" in config.model:
            options += ", or model.weights=FOLDER"
        raise ConfigError(
            f"method={method.name} begins from trained weights, and none are given",
            where="init",
            cure=options,
        )
    if released and config.model.get("inpaint"):
        raise ConfigError(
            f"no release has an inpainting input, and that of the base of method={method.name} "
            "would stay zero: no mask would have an effect",
            where="model.inpaint",
            cure="train it with method=full data=pairs, and begin from that run: "
            "init=RUN release.weights=FOLDER",
        )
    if method.adds_to_base and config.export_teacher:
        raise ConfigError(
            "an adapter alone cannot be a teacher",
            where="export_teacher",
            cure="merge it into its base first, or method=full",
        )


def require_same_base(checkpoint: Checkpoint, description: Mapping[str, Any]) -> None:
    """Raise CheckpointMismatch if a run would continue with another base or teacher."""
    from tinyflux_pl.methods import base_weights

    for key in ("base", "teacher"):
        if key in description:
            then = checkpoint.config.get(key) or {}
            base_weights.require_same(then, description[key], str(checkpoint.path))


def with_heads_of_base(config: Train, method: Method, denoiser: Any) -> Any:
    """The denoiser, newly initialised like its base where that has expert heads.

    A base that experts taught has their heads, and a run without experts builds none: without them
    the base would answer otherwise than it was trained to.
    """
    from tinyflux_pl.checkpoints.description import config_of
    from tinyflux_pl.checkpoints.directory import plain_keys
    from tinyflux_pl.inference.described_parts import network
    from tinyflux_pl.methods import base_weights
    from tinyflux_pl.weights.key_diff import shapes_of

    init = None if config.init is None else Path(config.init).expanduser()
    if not method.needs_base or init is None or not init.is_dir():
        return denoiser
    if not config_of(init).get("experts"):
        return denoiser
    checkpoint = base_weights.opened(init)
    here, there = shapes_of(plain_keys(denoiser.state_dict())), checkpoint.shapes()
    same_path = checkpoint.config.get("path") == _described(denoiser.path)
    if "base" in checkpoint.config or not same_path or len(here) >= len(there):
        return denoiser  # what does not fit is refused where weights are read
    if any(there.get(name) != shape for name, shape in here.items()):
        return denoiser
    is_outline = next(denoiser.parameters()).is_meta
    return network(checkpoint, outline=is_outline)[0].train(denoiser.training)


def _described(path: Any) -> dict[str, Any]:
    return {"name": path.name, "config": path.config()}


def _check_class(config: Train) -> None:
    """Raise ConfigError for a prior term without class pictures or weights to draw them."""
    sources = list(config.data.sources.values())
    number = config.objective.get("class_source")
    is_class = [node.train.get("_target_") == CLASS_PICTURES for node in sources]
    if number is not None and not (0 <= number < len(sources) and is_class[number]):
        cure = "data=dreambooth, or its place among data.sources: objective.class_source="
        what = f"source {number} has no class pictures"
        raise ConfigError(what, where="objective.class_source", cure=cure)
    missing = [node for node in sources if node.train.get("_target_") == CLASS_PICTURES]
    missing = [node for node in missing if node.train.get("root") is None]
    if missing and config.init is None and not config.model.get("weights"):
        cure = "init=outputs/RUN, model.weights=FOLDER of a release, or data.class_root=FOLDER"
        what = "the base draws the class, and no trained weights are named"
        raise ConfigError(what, where="data.class_root", cure=cure)


def complete(config: Train, denoiser: Any, method: Method, *, silent: bool) -> None:
    """Freeze parameters that get no gradient, and quantize frozen weights, in place.

    The denoiser is prepared by the method already.
    """
    from tinyflux_pl.methods import base_precision

    targets = {source.train.get("_target_") for source in config.data.sources.values()}
    if PAIRED not in targets:  # no source has references
        for name, parameter in denoiser.named_parameters():
            if not set(denoiser.reference_parts).isdisjoint(name.split(".")):
                parameter.requires_grad_(False)  # DDP would wait for its gradient
    packing = base_precision.pack_base(denoiser, method)
    if packing is not None and not silent and is_rank_zero():
        print(packing.summary)


class StartingPoint:
    """Loads the weights of `init` into a denoiser, and refers to those that it starts from."""

    def __init__(self, config: Train, method: Method) -> None:
        self.config = config
        self.complete = method.needs_base
        self.stored = method.base_precision
        self.key = "base" if method.adds_to_base else "teacher"
        self._init: Mapping[str, Any] | None = None
        self._release: Mapping[str, Any] | None = None

    def __call__(self, denoiser: Any) -> None:
        """Load `init`, and print what is new, dropped or widened."""
        from tinyflux_pl.checkpoints.start import start_from
        from tinyflux_pl.methods import base_weights

        if self.config.init is not None:
            self._init, tensors = base_weights.start_weights(Path(self.config.init))
            where = base_weights.described(self._init)
            report = start_from(denoiser, tensors, where, complete=self.complete)
            if is_rank_zero():
                print("\n".join(report.lines(where)))
        elif self.complete:
            self._release = base_weights.of_release(self.config.model, denoiser.weight_files)

    @property
    def description(self) -> dict[str, Any]:
        """The part of a checkpoint's description that refers to these weights.

        Its key is `base` if drawing needs them again, `teacher` if training does, `init` elsewhere.
        """
        if self.complete:
            stored = {} if self.stored is None else {"base_precision": self.stored}
            return {self.key: dict(self._init or self._release or {}), **stored}
        return {} if self._init is None else {"init": dict(self._init)}
