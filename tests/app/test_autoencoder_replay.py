"""`replay=BUNDLE` of an autoencoder's run: the optimizer that was judged, on its own."""

import json

import pytest
import torch

from tests.app.runs import SMALLEST_AUTOENCODER, configuration, settings
from tinyflux_pl.app import run as recipes
from tinyflux_pl.app.caches.prepare import prepare
from tinyflux_pl.app.components import Parts
from tinyflux_pl.core.errors import NumericsError

pytestmark = pytest.mark.filterwarnings("ignore")
OPTIONS = (
    *SMALLEST_AUTOENCODER,
    "data.in_memory=true",
    "logger=none",
    "callbacks.guard.max_consecutive=2",
    "callbacks.log_every_steps=4",
    "callbacks.checkpoint.every_steps=0",
    "callbacks.preview.every_steps=0",
    "callbacks.validation.every_steps=0",
    "steps=12",
)


def stopped(root, spoil, *options):
    """The bundle of a run whose steps are rejected once `spoil` has changed it."""
    parts = Parts.from_config(settings("train", root, *OPTIONS, *options, "run=stopped"))
    run = recipes.assemble(parts, prepare(parts), None)
    spoil(run)
    with pytest.raises(NumericsError, match=r"replay="):
        run.fit()
    (bundle,) = run.run_dir.glob("replay_*")
    return bundle


def replayed(root, bundle, capsys):
    """The exit code, and what was printed."""
    capsys.readouterr()
    code = recipes.train(configuration("train", root, f"replay='{bundle}'"))
    return code, capsys.readouterr().out


def test_pictures_that_are_not_finite_are_named_by_sample(tmp_path, capsys):
    def spoil(run):
        run.datamodule.train.datasets[0]._memory["latents"][0][1][:, 0, 0, 0] = float("inf")

    bundle = stopped(tmp_path, spoil, "objective.critic_weight=0")
    assert json.loads((bundle / "replay.json").read_text())["found"]["optimizer"] == "autoencoder"
    code, printed = replayed(tmp_path, bundle, capsys)
    assert code == 1
    assert "of the autoencoder" in printed
    assert "reproduced: loss is" in printed and "NOT" not in printed
    assert "not finite in the batch: latents of sample" in printed
    assert {"l1", "mse", "kl"} <= set(printed.split())


def test_a_critic_that_is_not_finite_is_judged_on_its_own(tmp_path, capsys):
    def spoil(run):
        with torch.no_grad():
            run.trainable.denoiser.critic.head.bias.fill_(float("nan"))

    bundle = stopped(tmp_path, spoil, "objective.critic_from=0", "objective.critic_weight=1e-9")
    failure = json.loads((bundle / "replay.json").read_text())["found"]
    code, printed = replayed(tmp_path, bundle, capsys)
    assert code == 1
    assert f"of the {failure['optimizer']}" in printed
    assert "not finite in the network: critic.head.bias" in printed
