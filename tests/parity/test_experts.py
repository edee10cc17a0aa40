"""The literal mode gives what the public original caches; its losses and its lookup are met."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from tinyflux_pl.core.specs import LatentSpec, TextSpec
from tinyflux_pl.core.types import Conditioning, TextEmbeddings
from tinyflux_pl.denoisers.unet import UNetDenoiser
from tinyflux_pl.diffusion.paths import LinearPath, VPPath
from tinyflux_pl.experts.bucket_interpolation import interpolate
from tinyflux_pl.experts.literal import literal_times
from tinyflux_pl.experts.lune import Lune
from tinyflux_pl.experts.lune_features import mid_block_mean
from tinyflux_pl.experts.sol import Sol
from tinyflux_pl.experts.sol_attention import capture_layers, summarise
from tinyflux_pl.experts.sol_statistics import LayerStatistics

DATA = Path(__file__).parent / "data"


def fixture(name):
    return load_file(DATA / f"tinyfluxfn_{name}.safetensors")


def close(actual, expected, tolerance=1e-5):
    assert actual.shape == expected.shape
    scale = max(float(expected.abs().max()), 1e-12)
    assert float((actual.double() - expected.double()).abs().max()) <= tolerance * scale


def streamed(attention):
    """Statistics of the original's full map (B, heads, N, N), fed a few queries at a time."""
    side = int(attention.shape[-1] ** 0.5)
    layer = LayerStatistics(len(attention), (side, side), attention.device)
    for start in range(0, side * side, 7):
        layer.add(attention[:, :, start : start + 7].mean(1), start)
    return layer


@pytest.mark.parametrize(
    ("case", "layers", "size"),
    [*((f"single.{i}", [i], 8) for i in range(4)), ("all", range(4), 8), ("all_5x5", range(4), 5)],
)
def test_sol_statistics_of_recorded_attention_maps(case, layers, size):
    data = fixture("sol_stats")
    stats, spatial = summarise([streamed(data[f"attn.{i}"]) for i in layers], size, literal=True)
    close(stats, data[f"{case}.stats"])
    close(spatial, data[f"{case}.spatial"])


@pytest.fixture(scope="module")
def tiny_unet():
    """Both clocks: the literal time must undo whichever scale the teacher has."""
    data = fixture("teachers_tinyunet")
    with safe_open(DATA / "tinyfluxfn_teachers_tinyunet.safetensors", "pt") as file:
        config = json.loads(file.metadata()["config"])
    weights = {k.removeprefix("model."): v for k, v in data.items() if k.startswith("model.")}
    specs = (LatentSpec(4, 8), TextSpec(24, 7, 24))
    lune = UNetDenoiser(
        config, LinearPath(1), "velocity", *specs, time_scale=1000.0, masks_text=False
    )
    sol = UNetDenoiser(config, VPPath(), "v", *specs, time_scale=999.0, masks_text=False)
    for net in (lune, sol):
        net.unet.load_state_dict(weights)
        net.eval().requires_grad_(False)
    hidden = data["input.clip_hidden"]
    cond = Conditioning(
        TextEmbeddings(hidden, torch.ones(hidden.shape[:2], dtype=torch.bool), hidden[:, 0])
    )
    return data, lune, sol, cond


def test_teacher_forward_equals_the_original(tiny_unet):
    data, lune, sol, cond = tiny_unet
    for net in (lune, sol):
        t = literal_times(data["input.t"], net)
        close(net(data["input.latents"], t, cond).sample, data["output.unet_sample"])


def test_lune_features_equal_the_original(tiny_unet):
    data, lune, _, cond = tiny_unet
    t = literal_times(data["input.t"], lune)
    close(mid_block_mean(lune, data["input.latents"], t, cond), data["output.lune_mid"])


@pytest.mark.parametrize(("size", "key"), [(8, "output.sol_spatial"), (5, "output.sol_spatial_5")])
def test_sol_attention_equals_the_original(tiny_unet, size, key):
    data, _, sol, cond = tiny_unet
    layers = capture_layers(sol, data["input.latents"], literal_times(data["input.t"], sol), cond)
    stats, spatial = summarise(layers, size, literal=True)
    close(stats, data["output.sol_stats"])
    close(spatial, data[key])


@pytest.mark.parametrize(
    ("table", "half", "full"),
    [
        ("lune.features", "lune.get", "lune.get_fp32"),
        ("sol.stats", "sol.get.stats", "sol.get_fp32.stats"),
        ("sol.spatial", "sol.get.spatial", "sol.get_fp32.spatial"),
    ],
)
def test_interpolated_cache_features_equal_the_original(table, half, full):
    data = fixture("caches")
    interpolated = interpolate(data[table][data["indices"]], data["t"], data["t_buckets"])
    close(interpolated.half(), data[half], 1e-3)  # one unit in the last place of fp16
    close(interpolated, data[full])


def test_lune_losses_equal_the_original():
    data = fixture("losses")
    for kind in ("cosine", "huber", "soft", "hard"):
        lune = Lune(data["lune.pred"].shape[1], loss=kind)
        loss = lune.loss({"vec": data["lune.pred"]}, {"vec": data["lune.target"]})
        close(loss.mean(), data[f"lune.{kind}"])


def test_sol_losses_equal_the_original():
    data = fixture("losses")
    heads = {"prior_stats": data["sol.pred_stats"], "prior_map": data["sol.pred_spatial"]}
    targets = {"prior_stats": data["sol.target_stats"], "prior_map": data["sol.target_spatial"]}
    close(Sol(stats=3, map_scale="sum").loss(heads, targets).mean(), data["sol.default"])
    weighted = Sol(stats=3, map_scale="sum", stats_weight=2.0, map_weight=0.5)
    close(weighted.loss(heads, targets).mean(), data["sol.w2_0.5"])
