"""Teachers: a frozen denoiser with its codec and text encoder, and the hash of its weights."""

import copy
import json
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tinyflux_pl.codecs.registry import build_codec
from tinyflux_pl.core.errors import ConfigError, CorruptCheckpoint, HubError
from tinyflux_pl.core.files import read_object, read_tensors
from tinyflux_pl.core.protocols import Codec, TextEncoder
from tinyflux_pl.core.specs import compare
from tinyflux_pl.denoisers.unet import UNetDenoiser
from tinyflux_pl.diffusion.paths import build_path
from tinyflux_pl.engine.skeleton import skeleton_of
from tinyflux_pl.text.registry import build_text
from tinyflux_pl.weights import hub
from tinyflux_pl.weights.dequantize import plain
from tinyflux_pl.weights.headers import known_sha256, tensor_shapes
from tinyflux_pl.weights.key_diff import require_match, shapes_of

CURE = "use the weights of this network"
ASSETS = Path(__file__).resolve().parent.parent / "assets" / "teachers"
FLOW_TEACHERS: dict[str, dict[str, Any]] = {
    "lune": {
        "path": ("linear", {"noise_at": 1}),
        "prediction": "velocity",
        "time_scale": 1000.0,
        "shift": 2.0,
    },
    "sol": {"path": ("vp", {}), "prediction": "v", "time_scale": 999.0, "shift": 1.0},
}


@dataclass
class Teacher:
    """A frozen denoiser: features are read from UNets alone, velocities from any.

    `weights` identifies the weights: the SHA-256 of their file, or the hash of a checkpoint.
    `shift` is the timestep shift for sampling.

    With `read` the network is on the meta device, and `read` gives the one with weights on first
    use: checks, memory plans and fingerprints need no weights.
    """

    network: Any  # core.protocols.Denoiser, a module
    codec: Codec
    text: TextEncoder
    name: str
    weights: str
    shift: float = 1.0
    read: Callable[[], Any] | None = None

    def __post_init__(self) -> None:
        cure = "use the codec and the text encoder that the teacher was trained with"
        compare(
            self.network.latent_spec,
            self.codec.latent_spec,
            f"latents of teacher {self.name}",
            cure,
        )
        compare(self.network.text_spec, self.text.text_spec, f"text of teacher {self.name}", cure)
        self.network.eval().requires_grad_(False)
        self._skeleton: Any = None

    @property
    def denoiser(self) -> Any:
        """The network with its weights, which are read on first use."""
        if self.read is not None:
            self._skeleton, self.network = self.network, self.read()
            self.network.eval().requires_grad_(False)
            self.read = None
        return self.network

    @property
    def skeleton(self) -> Any:
        """The network on the meta device; no weights are read for it."""
        if self._skeleton is None:
            self._skeleton = self.network if self.read is not None else skeleton_of(self.network)
        return self._skeleton

    @contextmanager
    def on(self, device: torch.device) -> Generator[Any]:
        """The denoiser, moved to a device; on the meta device its skeleton."""
        yield self.skeleton if device.type == "meta" else self.to(device).network

    def fingerprint(self) -> dict[str, Any]:
        """Plain data that determines the teacher's predictions."""
        path = self.network.path
        return {
            "teacher": self.name,
            "weights": self.weights,
            "denoiser": self.network.config_dict(),
            "dtype": str(self.dtype).removeprefix("torch."),
            "path": {"name": path.name, "config": path.config()},
            "codec": self.codec.fingerprint(),
            "text": self.text.fingerprint(),
        }

    @property
    def device(self) -> torch.device:
        """The denoiser's device."""
        return next(self.denoiser.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the denoiser's weights."""
        return next(self.network.parameters()).dtype

    def to(self, device: Any) -> "Teacher":
        """Move the denoiser; the caller moves codec and text encoder where it uses them."""
        self.denoiser.to(device)
        return self


def embedded(name: str, folder: str | Path | None = None) -> Teacher:
    """Load `<folder>/<name>.safetensors`, described by `<name>.json`; the project's own by default.

    The JSON has the keys denoiser ("unet"), config, path, prediction, codec, text, sha256 and
    recipe. Weights in half precision are cast to fp32. Raises ConfigError if a file is missing,
    CorruptCheckpoint if the bytes are not those described, CheckpointMismatch if they do not fit.
    """
    folder = ASSETS if folder is None else Path(folder)
    weights, description = folder / f"{name}.safetensors", folder / f"{name}.json"
    for file in (weights, description):
        if not file.is_file():
            raise ConfigError(
                f"no teacher {name!r}: {file.name} is missing",
                where=str(folder),
                cure="train and export it with its recipe, or choose another teacher",
            )
    try:
        parts = json.loads(description.read_text())
        digest = parts["sha256"]
        kind = parts["denoiser"]
        path = build_path(parts["path"]["name"], parts["path"]["config"])
        codec = build_codec(parts["codec"]["name"], parts["codec"]["config"])
        text = build_text(parts["text"]["name"], parts["text"]["config"])
        config = parts["config"]
    except (KeyError, json.JSONDecodeError) as error:
        raise CorruptCheckpoint(
            f"{description.name} does not describe a teacher: {error!r}",
            where=str(folder),
            cure="export it again",
        ) from error
    if kind != "unet":
        raise ConfigError(
            f"teacher {name!r} is a {kind!r}",
            where=str(description),
            cure="teachers are UNets: unet",
        )
    if known_sha256(weights) != digest:
        raise CorruptCheckpoint(
            f"{weights.name} is not the file that {description.name} describes",
            where=str(folder),
            cure="restore both files from one release",
        )
    with torch.device("meta"):
        skeleton = UNetDenoiser.from_config(config, path)
    require_match(shapes_of(skeleton.state_dict()), tensor_shapes(weights), str(weights), CURE)

    def read() -> UNetDenoiser:
        denoiser = UNetDenoiser.from_config(config, path)
        load_strictly(denoiser, read_tensors(weights), str(weights))
        return denoiser

    return Teacher(skeleton, codec, text, name, digest, read=read)


def sd15_flow(
    name: str,
    unet: str,
    weights: str,
    codec: Codec,
    text: TextEncoder,
    subfolder: str = "unet",
    unet_revision: str | None = None,
    weights_file: str = "",
    weights_revision: str | None = None,
    dtype: str = "float32",
) -> Teacher:
    """Stable Diffusion 1.5's UNet with published flow weights.

    These are `sd15-flow-{lune,sol}-unet.safetensors`. `unet` (folder or repository) gives
    config.json under `subfolder`; `weights` is the file, or the repository that holds
    `weights_file`. Lune: linear path, noise at 1, velocity, sampled with shift 2; Sol: v-prediction
    on the scaled-linear DDPM table. Weights load strictly: CheckpointMismatch.
    """
    if name not in FLOW_TEACHERS:
        choices = " or ".join(sorted(FLOW_TEACHERS))
        raise ConfigError(f"no flow teacher {name!r}", where="teacher", cure=f"choose {choices}")
    if dtype not in ("float32", "bfloat16", "float16"):
        raise ConfigError(
            f"no dtype {dtype!r}", where="teacher.dtype", cure="float32, bfloat16 or float16"
        )
    kind = FLOW_TEACHERS[name]
    prefix = f"{subfolder}/" if subfolder else ""
    unet_folder = hub.resolve(unet, unet_revision, [f"{prefix}config.json"])
    unet_config = unet_folder / subfolder / "config.json"
    file_name = weights_file or f"sd15-flow-{name}-unet.safetensors"
    file = hub.resolve(weights, weights_revision, [file_name])
    file = file / file_name if file.is_dir() else file
    for required in (unet_config, file):
        if not required.is_file():
            raise HubError(
                f"no {required.name}",
                where=str(required.parent),
                cure="check the teacher's unet and weights",
            )
    path = build_path(*kind["path"])
    with torch.device("meta"):
        network = UNetDenoiser(
            read_object(unet_config),
            path,
            kind["prediction"],
            codec.latent_spec,
            text.text_spec,
            kind["time_scale"],
            masks_text=False,
        ).to(getattr(torch, dtype))
    require_match(shapes_of(network.unet.state_dict()), tensor_shapes(file), str(file), CURE)
    digest = known_sha256(file)

    def read() -> UNetDenoiser:
        denoiser = copy.deepcopy(network)
        tensors = plain(read_tensors(file), getattr(torch, dtype), str(file))
        expected = denoiser.unet.state_dict()
        require_match(shapes_of(expected), shapes_of(tensors), str(file), CURE)
        cast = {key: tensor.to(expected[key].dtype) for key, tensor in tensors.items()}
        denoiser.unet.load_state_dict(cast, assign=True)
        return denoiser

    return Teacher(network, codec, text, name, digest, kind["shift"], read)


def load_strictly(module: torch.nn.Module, tensors: dict[str, Tensor], where: str) -> None:
    """Load weights in the module's dtype.

    CheckpointMismatch for missing, extra or mis-shaped keys.
    """
    require_match(shapes_of(module.state_dict()), shapes_of(tensors), where, CURE)
    module.load_state_dict(tensors)
