"""Small networks of every family, counted with replayed blocks: to the byte as without."""

import pytest
import torch

from tests import releases_flux1, releases_stability
from tests.denoisers import test_flux_core, test_fluxflow, test_tinyflux, test_unet
from tests.denoisers.test_conformance import FLUX2, FLUX3, STRAIGHT, released
from tinyflux_pl.core.specs import LatentSpec, TextSpec
from tinyflux_pl.core.types import Conditioning, TextEmbeddings
from tinyflux_pl.denoisers import flux1, flux2, flux3, sd3, sdxl
from tinyflux_pl.diffusion.paths import VPPath
from tinyflux_pl.engine import block_replay
from tinyflux_pl.engine.activations import history

TEXT = TextSpec(24, 6, 0)
WIDTHS = {"joint_attention_dim": 16, "pooled_projection_dim": 12}
# family -> module and specs, and a small structure of several equal blocks
RELEASED = {
    "flux1": (
        (flux1, LatentSpec(16, 8), TextSpec(16, 6, 12), STRAIGHT),
        releases_flux1.STRUCTURE | WIDTHS | {"num_layers": 4, "num_single_layers": 5},
    ),
    "flux2": (
        (flux2, LatentSpec(16, 16), TEXT, STRAIGHT),
        FLUX2 | {"num_layers": 3, "num_single_layers": 4},
    ),
    "flux3": (
        (flux3, LatentSpec(16, 16), TEXT, STRAIGHT),
        FLUX3 | {"num_layers": 4, "num_single_layers": 4},
    ),
    "sd3": (
        (sd3, LatentSpec(16, 8), TextSpec(32, 9, 20), STRAIGHT),
        releases_stability.SD35 | {"num_layers": 6, "dual_attention_layers": (0, 1, 2)},
    ),
    "sdxl": (
        (sdxl, LatentSpec(4, 8), TextSpec(24, 77, 10), VPPath()),
        releases_stability.SDXL | {"transformer_layers_per_block": (1, 2, 4)},
    ),
}
FAMILIES = {name: released(*parts, structure) for name, (parts, structure) in RELEASED.items()}
FAMILIES |= {
    "tinyflux": lambda: test_tinyflux.denoiser(num_double_layers=3, num_single_layers=4),
    "flux_core": lambda: test_flux_core.denoiser(depth=3, depth_single_blocks=4),
    "fluxflow": lambda: test_fluxflow.small(layers=4),
    "unet": lambda: test_unet.small(layers_per_block=3),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_counted_to_the_byte(name, monkeypatch):
    network = FAMILIES[name]().eval().to("meta")
    spec = network.text_spec
    x = torch.empty(2, network.latent_spec.channels, 8, 8, device="meta")
    text = TextEmbeddings(
        x.new_empty(2, spec.length, spec.width),
        x.new_empty(2, spec.length, dtype=torch.bool),
        x.new_empty(2, spec.pooled),
    )
    replays = []
    replay = block_replay._Record.replay
    monkeypatch.setattr(block_replay._Record, "replay", lambda *a: replays.append(1) or replay(*a))

    def work():
        return network(x, x.new_ones(2), Conditioning(text))

    history(work)  # what it keeps for later calls
    plain = history(work)
    assert not replays
    assert history(work, network) == plain and len(replays) > 2
