"""FluxFlow's denoiser: any path and prediction, rebuilt from a checkpoint's description."""

import pytest
import torch

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.specs import LatentSpec, TextSpec
from tinyflux_pl.denoisers import fluxflow
from tinyflux_pl.diffusion.paths import LinearPath, VPPath


def small(path=None, **options):
    sizes = {"width": 16, "heads": 2, "layers": 2, **options}
    return fluxflow.build(LatentSpec(4, 16), TextSpec(12, 5, 6), path or VPPath(), **sizes)


def test_the_denoiser_is_rebuilt_from_its_description():
    first = small()
    again = fluxflow.FluxFlowDenoiser.from_config(first.config_dict(), VPPath())
    again.load_state_dict(first.state_dict())
    assert again.config_dict() == first.config_dict()
    assert (again.prediction, again.path.name) == ("v", "vp")


def test_the_denoiser_predicts_along_other_paths():
    assert small(LinearPath(noise_at=0), prediction="velocity").prediction == "velocity"


def test_adapters_find_its_linear_layers():
    names = {n for n, m in small().net.named_modules() if isinstance(m, torch.nn.Linear)}
    for pattern in fluxflow.FluxFlowDenoiser.lora_targets:
        first, last = pattern.split("*")[0], pattern.rsplit("*", 1)[-1]
        assert any(n.startswith(first) and n.endswith(last) for n in names)


@pytest.mark.parametrize("options", [{"heads": 3}, {"width": 12}, {"prediction": "w"}])
def test_incompatible_sizes_are_refused(options):
    with pytest.raises(ConfigError):
        small(**options)
