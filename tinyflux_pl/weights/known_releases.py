"""Published releases, recognised by a few of their shapes."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn

from tinyflux_pl.core.errors import CheckpointMismatch
from tinyflux_pl.weights import key_prefixes
from tinyflux_pl.weights.key_diff import Shapes, shapes_of
from tinyflux_pl.weights.load_release import WeightSource

ANY: tuple[int, ...] = ()  # there, in whatever shape
FLUX1 = {"vector_in.in_layer.weight|time_text_embed.text_embedder.linear_1.weight": ANY}
GUIDED = "guidance_in.in_layer.weight|time_text_embed.guidance_embedder.linear_1.weight"
TOKENS = "img_in.weight|x_embedder.weight"
FLUX2 = {"single_stream_modulation.lin.weight|single_stream_modulation.linear.weight": ANY}
FLUX3 = {"emb_in.image.weight|x_embedders.image.weight": (3072, 128)}
FLOW_MAP = "ref_time_in.in_layer.weight|target_timestep_embedder.linear_1.weight"
PATCHES = "x_embedder.proj.weight|pos_embed.proj.weight"
DUAL = "joint_blocks.0.x_block.attn2.qkv.weight|transformer_blocks.0.attn2.to_q.weight"
PIXELS = "input_blocks.0.0.weight|conv_in.weight"
SIZES = "label_emb.0.0.weight|add_embedding.linear_1.weight"


@dataclass(frozen=True)
class Release:
    """One release, or several of equal structure: its name, its conf/model names and its shapes.

    A key of `shapes` is given in the original layout, then in that of diffusers; None: it is not
    there.
    """

    name: str
    models: tuple[str, ...]
    shapes: Mapping[str, tuple[int, ...] | None]

    def fits(self, shapes: Shapes) -> bool:
        """True if the file has these shapes."""
        for names, shape in self.shapes.items():
            actual = next((shapes[name] for name in names.split("|") if name in shapes), None)
            if (actual is None) != (shape is None) or (shape and actual != shape):
                return False
        return True


RELEASES = (  # the first that fits
    Release("Chroma", (), {"distilled_guidance_layer.in_proj.bias": ANY}),
    Release(
        "FLUX.1 dev or Kontext",
        ("flux1_dev", "flux1_kontext"),
        {**FLUX1, TOKENS: (3072, 64), GUIDED: ANY},
    ),
    Release("FLUX.1 schnell", ("flux1_schnell",), {**FLUX1, TOKENS: (3072, 64), GUIDED: None}),
    Release("FLUX.1 Fill", ("flux1_fill",), {**FLUX1, TOKENS: (3072, 384)}),
    Release("FLUX.1 Canny or Depth", (), {**FLUX1, TOKENS: (3072, 128)}),
    Release("FLUX.2 dev", ("flux2_dev",), {**FLUX2, TOKENS: (6144, 128)}),
    Release("FLUX.2 klein 4B", ("flux2_klein_4b",), {**FLUX2, TOKENS: (3072, 128)}),
    Release("FLUX.2 klein 9B", ("flux2_klein_9b",), {**FLUX2, TOKENS: (4096, 128)}),
    Release("FLUX.3", ("flux3",), {**FLUX3, FLOW_MAP: None}),
    Release("a step-distilled FLUX.3", (), {**FLUX3, FLOW_MAP: ANY}),
    Release("SD3.5 medium", ("sd35_medium",), {PATCHES: (1536, 16, 2, 2), DUAL: ANY}),
    Release("SD3 medium", (), {PATCHES: (1536, 16, 2, 2), DUAL: None}),
    Release("SD3.5 large", ("sd35_large",), {PATCHES: (2432, 16, 2, 2)}),
    Release("SDXL", ("sdxl",), {PIXELS: (320, 4, 3, 3), SIZES: (1280, 2816)}),
    Release("SDXL inpainting", (), {PIXELS: (320, 9, 3, 3), SIZES: ANY}),
    Release("SDXL's refiner", (), {PIXELS: (384, 4, 3, 3), SIZES: ANY}),
    Release("Stable Diffusion 1 or 2", (), {PIXELS: (320, 4, 3, 3), SIZES: None}),
)


def release_of(shapes: Shapes) -> Release | None:
    """The release whose shapes these are, alone or inside a whole checkpoint.

    None where it is not known.
    """
    network_shapes = key_prefixes.network_tensors(shapes, key_prefixes.NETWORK, "")
    return next((release for release in RELEASES if release.fits(network_shapes)), None)


def require_same(expected: Shapes, actual: Shapes, where: str) -> None:
    """Raise CheckpointMismatch where both are known releases, and not the same one."""
    expected_release = release_of(expected)
    actual_release = release_of(actual)
    if expected_release and actual_release and expected_release is not actual_release:
        what = f"the weights of {actual_release.name}, not of {expected_release.name}"
        raise CheckpointMismatch(what, where=where, cure=cure(actual))


@contextmanager
def recognised(net: nn.Module, source: WeightSource) -> Generator[None]:
    """Add the recognised release of the file to a CheckpointMismatch of the block."""
    try:
        yield
    except CheckpointMismatch as error:
        shapes = source.shapes()
        release = release_of(shapes)
        if release is None or release is release_of(shapes_of(net.state_dict())):
            raise
        what = f"these are the weights of {release.name}; {error.what}"
        raise CheckpointMismatch(what, where=error.where, cure=cure(shapes)) from error


def cure(shapes: Shapes) -> str:
    """Advice for such weights: the model= to choose, where one is known."""
    release = release_of(shapes)
    if release is None:
        return "give weights of the model that was chosen, or choose the model= of these weights"
    return (
        _choice(release)
        or f"{release.name} has no model= here; give weights of the model that was chosen"
    )


def apposition(shapes: Shapes) -> str:
    """An apposition to "this file" in messages: its release and model; "" if unknown."""
    release = release_of(shapes)
    if release is None:
        return ""
    choice = _choice(release)
    return f", of {release.name} ({choice})," if choice else f", of {release.name},"


def _choice(release: Release) -> str:
    return " or ".join(f"model={name}" for name in release.models)
