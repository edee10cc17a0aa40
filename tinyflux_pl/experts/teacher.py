"""A teacher: a denoiser with the codec and the text that it reads, and where its weights come from."""

import json
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
from tinyflux_pl.text.registry import build_text
from tinyflux_pl.weights import hub
from tinyflux_pl.weights.dequantize import plain
from tinyflux_pl.weights.headers import known_sha256, tensor_shapes
from tinyflux_pl.weights.key_diff import require_match, shapes_of

CURE = "use the weights made for this network"
ASSETS = Path(__file__).resolve().parent.parent / "assets" / "teachers"
FLOW_TEACHERS: dict[str, dict[str, Any]] = {
    "lune": {"path": ("linear", {"noise_at": 1}), "prediction": "velocity", "time_scale": 1000.0, "shift": 2.0},
    "sol": {"path": ("vp", {}), "prediction": "v", "time_scale": 999.0, "shift": 1.0},
}


@dataclass
class Teacher:
    """`weights` is the sha256 of the file they came from; `shift` the one to sample this teacher with.

    With `unread` the network is still an outline on the meta device, to which that file's weights come on
    first use: comparing fingerprints takes none.
    """

    network: UNetDenoiser
    codec: Codec
    text: TextEncoder
    name: str
    weights: str
    shift: float = 1.0
    unread: Path | None = None

    def __post_init__(self) -> None:
        cure = "give the teacher the codec and the text encoder that it was trained with"
        compare(self.network.latent_spec, self.codec.latent_spec, f"latents of teacher {self.name}", cure)
        compare(self.network.text_spec, self.text.text_spec, f"text of teacher {self.name}", cure)
        self.network.eval().requires_grad_(False)

    @property
    def denoiser(self) -> UNetDenoiser:
        """The network with its weights."""
        if self.unread is not None:
            own, held = self.network.unet.state_dict(), read_tensors(self.unread)
            found = plain(held, self.dtype, str(self.unread))
            require_match(shapes_of(own), shapes_of(found), str(self.unread), CURE)
            cast = {key: tensor.to(own[key].dtype) for key, tensor in found.items()}
            self.network.unet.load_state_dict(cast, assign=True)
            self.network.eval().requires_grad_(False)
            self.unread = None
        return self.network

    def fingerprint(self) -> dict[str, Any]:
        """What decides the teacher's answers."""
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
        """Where the denoiser lies."""
        return next(self.denoiser.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """What the denoiser computes in."""
        return next(self.network.parameters()).dtype

    def to(self, device: Any) -> "Teacher":
        """Move the denoiser; codec and text are moved by who uses them."""
        self.denoiser.to(device)
        return self


def embedded(name: str, folder: str | Path | None = None) -> Teacher:
    """The teacher `<folder>/<name>.safetensors` described by `<name>.json`; the project's own by default.

    The JSON holds denoiser ("unet"), config, path, prediction, codec, text, sha256 and recipe. Weights
    in half precision are cast to fp32. Raises ConfigError if it is not there, CorruptCheckpoint if the
    bytes are not those described, CheckpointMismatch if they do not fit the network.
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
        told = json.loads(description.read_text())
        digest, kind = told["sha256"], told["denoiser"]
        path = build_path(told["path"]["name"], told["path"]["config"])
        codec = build_codec(told["codec"]["name"], told["codec"]["config"])
        text = build_text(told["text"]["name"], told["text"]["config"])
        config = told["config"]
    except (KeyError, json.JSONDecodeError) as error:
        raise CorruptCheckpoint(
            f"{description.name} does not describe a teacher: {error!r}", where=str(folder), cure="export it again"
        ) from error
    if kind != "unet":
        raise ConfigError(f"teacher {name!r} is a {kind!r}", where=str(description), cure="teachers are UNets: unet")
    if known_sha256(weights) != digest:
        raise CorruptCheckpoint(
            f"{weights.name} is not the file that {description.name} describes",
            where=str(folder),
            cure="restore both files from one release",
        )
    denoiser = UNetDenoiser.from_config(config, path)
    load_strictly(denoiser, read_tensors(weights), str(weights))
    return Teacher(denoiser, codec, text, name, digest)


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
    """Stable Diffusion 1.5's UNet with the published flow weights `sd15-flow-{lune,sol}-unet.safetensors`.

    `unet` (folder or repository) gives config.json under `subfolder`; `weights` is the file, or the
    repository that holds `weights_file`. Lune: linear path, noise at 1, velocity, sampled with shift 2;
    Sol: v-prediction on the scaled-linear DDPM table. Weights load strictly: CheckpointMismatch.
    """
    if name not in FLOW_TEACHERS:
        raise ConfigError(f"no flow teacher {name!r}", where="teacher", cure=f"one of {sorted(FLOW_TEACHERS)}")
    if dtype not in ("float32", "bfloat16", "float16"):
        raise ConfigError(f"no dtype {dtype!r}", where="teacher.dtype", cure="float32, bfloat16 or float16")
    kind = FLOW_TEACHERS[name]
    prefix = f"{subfolder}/" if subfolder else ""
    described = hub.resolve(unet, unet_revision, [f"{prefix}config.json"]) / subfolder / "config.json"
    file_name = weights_file or f"sd15-flow-{name}-unet.safetensors"
    file = hub.resolve(weights, weights_revision, [file_name])
    file = file / file_name if file.is_dir() else file
    for needed in (described, file):
        if not needed.is_file():
            raise HubError(f"no {needed.name}", where=str(needed.parent), cure="check the teacher's unet and weights")
    path = build_path(*kind["path"])
    with torch.device("meta"):
        outline = UNetDenoiser(
            read_object(described),
            path,
            kind["prediction"],
            codec.latent_spec,
            text.text_spec,
            kind["time_scale"],
            masks_text=False,
        ).to(getattr(torch, dtype))
    require_match(shapes_of(outline.unet.state_dict()), tensor_shapes(file), str(file), CURE)
    return Teacher(outline, codec, text, name, known_sha256(file), kind["shift"], unread=file)


def load_strictly(module: torch.nn.Module, tensors: dict[str, Tensor], where: str) -> None:
    """Copy weights in the module's own dtype; CheckpointMismatch names what is missing, extra or misshapen."""
    require_match(shapes_of(module.state_dict()), shapes_of(tensors), where, CURE)
    module.load_state_dict(tensors)
