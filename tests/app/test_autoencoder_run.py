"""The autoencoder's run: several networks and optimizers through the real configuration."""

import pytest
import torch

from tests.app.runs import SMALLEST, SMALLEST_AUTOENCODER, run, settings
from tinyflux_pl.app import run as recipes
from tinyflux_pl.app.components import Parts
from tinyflux_pl.checkpoints import directory
from tinyflux_pl.core import files
from tinyflux_pl.core.errors import ConfigError, SpecMismatch


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("whole")
    run("train", root, *SMALLEST_AUTOENCODER, "run=whole", "steps=6", "hardware.accumulation=2")
    return root / "outputs" / "whole"


def same(left, right):
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right


def test_a_run_measures_reconstructions_of_held_out_images(trained):
    results = files.read_json(trained / "results.json")
    assert results["psnr_held_out"] > 0
    assert -1 <= results["ssim_held_out"] <= 1
    assert results["steps"] == 6
    assert (trained / "samples" / "step_0000006.png").exists()
    header = (trained / "csv" / "metrics.csv").read_text().splitlines()[0].split(",")
    names = ("loss", "l1", "mse", "kl", "adversarial", "critic_hinge", "critic_r1")
    assert {f"train/{name}" for name in names} <= set(header)


def test_both_optimizers_and_the_averages_are_in_the_checkpoint(trained):
    checkpoint = directory.read(trained / "checkpoints" / "step_0000006")
    state = checkpoint.state()
    assert set(state["optimizer"]) == {"autoencoder", "critic"}
    steps = {n: int(s["state"][0]["step"]) for n, s in state["optimizer"].items()}
    assert steps == {"autoencoder": 6, "critic": 4}  # the critic begins at step 2
    averaged, raw = checkpoint.weights(), checkpoint.weights("raw")
    name = "autoencoder.encoder.mean.weight"
    assert not torch.equal(averaged[name], raw[name])
    critic = [name for name in raw if name.startswith("critic.")]
    assert critic and all(torch.equal(averaged[name], raw[name]) for name in critic)
    stored = files.read_tensors(checkpoint.path / "ema.safetensors")
    assert {name.split(".")[0] for name in stored} == {"autoencoder"}
    statistic = raw["autoencoder.latent_std"]
    assert not torch.equal(statistic, torch.ones_like(statistic))


def test_a_run_interrupted_in_the_critic_phase_resumes_bit_equal(trained, tmp_path):
    options = (
        *SMALLEST_AUTOENCODER,
        "run=cut",
        "hardware.accumulation=2",
        "schedule.total_steps=6",
    )
    run("train", tmp_path, *options, "steps=4")
    run("train", tmp_path, *options, "steps=6", "resume=auto", "resume_changed=true")
    cut = directory.read(tmp_path / "outputs" / "cut" / "checkpoints" / "step_0000006")
    uninterrupted = directory.read(trained / "checkpoints" / "step_0000006")
    for which in ("raw", "averaged"):
        assert same(cut.weights(which), uninterrupted.weights(which))
    states = [checkpoint.state() for checkpoint in (cut, uninterrupted)]
    assert same(states[0]["optimizer"], states[1]["optimizer"])
    medians = [state["callbacks"]["NonFiniteGuard"]["medians"] for state in states]
    assert same(*medians)


def test_the_preflight_dry_runs_the_critic_too(tmp_path, capsys):
    run("train", tmp_path, *SMALLEST_AUTOENCODER, "run=checked", "steps=6", "preflight=only")
    assert "measured" in capsys.readouterr().out


def test_latent_inputs_and_experts_are_refused(tmp_path):
    parts = Parts.from_config(settings("train", tmp_path, *SMALLEST_AUTOENCODER, "codec.fold=2"))
    parts.check()
    with pytest.raises(ConfigError, match="experts"):
        recipes.train(
            {
                **settings("train", tmp_path, *SMALLEST_AUTOENCODER, "experts=lune").plain,
                "overrides": [],
            }
        )
    objective = parts.objective(None, ())
    assert objective.critic_active(2)
    assert not objective.critic_active(1)
    from tinyflux_pl.codecs.autoencoder_networks import AutoencoderNetworks
    from tinyflux_pl.codecs.bezier_networks import AutoencoderConfig
    from tinyflux_pl.core.specs import LatentSpec

    with pytest.raises(SpecMismatch, match="codec=pixels"):
        AutoencoderNetworks(AutoencoderConfig(4, (4, 8), (4, 8), 1, 2, 4, 8), {}, LatentSpec(16, 8))


def drawn_with(root, trained, *options):
    """A short run on the trained codec, then one picture of its checkpoint."""
    codec = ("codec=bezier", f"codec.checkpoint={trained}")
    run("train", root, *codec, *options, "run=second", "steps=2", "hardware.precision=32-true")
    checkpoint = root / "outputs" / "second" / "checkpoints" / "step_0000002"
    run("generate", root, f"checkpoint={checkpoint}", "prompt=a red circle", "n=1", "run=drawn")
    described = directory.read(checkpoint).config
    return described, list((root / "outputs" / "drawn").glob("*.png"))


def test_the_flow_stage_trains_and_samples_in_the_latents_of_the_codec(trained, tmp_path):
    sizes = ("model=fluxflow_tiny", "model.width=16", "model.heads=2", "model.layers=1")
    described, pictures = drawn_with(tmp_path, trained, *sizes, "path=vp", "sampler=fluxflow")
    assert described["codec"]["name"] == "bezier"
    assert described["denoiser"]["name"] == "fluxflow"
    assert pictures


def test_tinyflux_trains_and_samples_in_the_latents_of_the_codec(trained, tmp_path):
    described, pictures = drawn_with(tmp_path, trained, *SMALLEST, "experts=none")
    assert described["codec"]["name"] == "bezier"
    assert described["denoiser"]["name"] == "tinyflux"
    assert pictures


def test_sampling_from_an_autoencoder_checkpoint_is_refused(trained, tmp_path):
    checkpoint = trained / "checkpoints" / "step_0000006"
    with pytest.raises(ConfigError, match="bezier_autoencoder"):
        run("generate", tmp_path, f"checkpoint={checkpoint}", "prompt=a red circle")


def test_memory_is_planned_for_stages_of_equal_widths(tmp_path, capsys):
    widths = ("model.encoder_widths=[4,4,4,4]", "model.decoder_widths=[4,4,4,4]")
    run("train", tmp_path, *SMALLEST_AUTOENCODER, *widths, "run=planned", "preflight=plan")
    assert "planned memory" in capsys.readouterr().out
