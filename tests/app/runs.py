"""Small complete runs through the real configuration, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tinyflux_pl.app.drawing import from_image
from tinyflux_pl.config import schema
from tinyflux_pl.config.schema import Task

CONF = Path(__file__).resolve().parents[2] / "conf"
SHAPES = (
    "data.sources.shapes.train.count=48",
    "data.sources.shapes.validation.count=8",
    "data.shard_size=32",
)


SMALLEST = (
    "model.hidden_size=16",
    "model.num_attention_heads=1",
    "model.attention_head_dim=16",
    "model.axes_dims_rope=[4,6,6]",
    "model.num_double_layers=1",
    "model.num_single_layers=1",
    "text.width=16",
    "hardware.precision=32-true",
)  # TinyFlux

SMALLEST_AUTOENCODER = (
    "model=fluxflow_vae_tiny",
    "objective=autoencoder",
    "optimizer=adamw",
    "codec.fold=1",
    "model.latent_channels=4",
    "model.encoder_widths=[4,4,4,8]",
    "model.decoder_widths=[4,4,4,8]",
    "model.spade_hidden=4",
    "model.critic_width=4",
    "model.critic_depth=2",
    "objective.critic_from=2",
    "objective.r1_every=2",
    "hardware.precision=32-true",
    "hardware.batch_size=4",
    "callbacks.preview.count=2",
)


def configuration(task: str, root: Path, *overrides: str) -> dict[str, Any]:
    """Resolved configuration of a task with all paths below `root`.

    Preflight and report are off unless requested.
    """
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    other_data = any(line.startswith("data=") for line in overrides)
    fast = ["debug=fast", "data.limit=null"]  # caches have the names of those of all pictures
    small = [] if task == "generate" else [*fast, *(() if other_data else SHAPES)]
    overrides_list = from_image.with_recorded_overrides(
        [*small, f"paths.root='{root}'", *overrides]
    )
    with initialize_config_dir(str(CONF), version_base=None):
        config = compose(task, overrides=overrides_list)
    slow = ("preflight", "report") if task == "train" else ()
    quick = {k: False for k in slow if not any(o.startswith(f"{k}=") for o in overrides)}
    return {**OmegaConf.to_container(config, resolve=True), **quick, "overrides": overrides_list}


def settings(task: Task, root: Path, *overrides: str) -> Any:
    """The typed configuration of a task, as a recipe reads it."""
    return schema.read(configuration(task, root, *overrides), task)


def run(task: str, root: Path, *overrides: str) -> dict[str, Any]:
    """Run a task; returns its configuration."""
    from tinyflux_pl.app import run as recipes

    config = configuration(task, root, *overrides)
    getattr(recipes, task)(config)
    return config


def photographs(folder: Path, names: Sequence[str], side: int = 96) -> Path:
    """Photographs of scikit-image, reduced, as PNG and JPEG with caption files."""
    from PIL import Image
    from skimage import data

    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        picture = Image.fromarray(getattr(data, name)())
        picture.thumbnail((2 * side, side))
        file = folder / f"{name}.{('png', 'jpg')[i % 2]}"
        picture.save(file)
        file.with_suffix(".txt").write_text(f"a photograph of {name}, [blue]", encoding="utf-8")
    return folder
