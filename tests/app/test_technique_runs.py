"""technique=: runs that use one, and settings that it does not go with."""

import pytest
import torch

from tests.app.runs import SMALLEST, SMALLEST_AUTOENCODER, run, settings
from tinyflux_pl.app.components import Parts
from tinyflux_pl.checkpoints import directory
from tinyflux_pl.core.errors import ConfigError

SMALL = ("model=tiny", *SMALLEST, "data.sources.shapes.train.count=24", "data.evaluation_prompts=2")
SMALL += ("callbacks.preview.count=1", "callbacks.log_every_steps=1", "experts=none")
ALL = "technique=[contrastive,layer_sync,token_routing]"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("techniques")


def weights(folder):
    return directory.newest_valid(folder / "checkpoints")[0].weights("raw")


@pytest.fixture(scope="module")
def trained(root):
    more = ("steps=3", "callbacks.checkpoint.every_steps=1", "callbacks.checkpoint.keep=9")
    run("train", root, *SMALL, ALL, *more, "run=all")
    return root / "outputs" / "all"


def test_terms_are_logged_and_weights_differ_from_a_plain_run_s(root, trained):
    header, *_ = (trained / "csv" / "metrics.csv").read_text().splitlines()
    assert {"train/contrastive", "train/layer_sync"} <= set(header.split(","))
    run("train", root, *SMALL, "steps=3", "run=plain")
    technique, plain = weights(trained), weights(root / "outputs" / "plain")
    assert technique.keys() == plain.keys()
    assert any(not torch.equal(technique[name], plain[name]) for name in plain)


def test_resumption_reproduces_the_weights_exactly(root, trained):
    origin = trained / "checkpoints" / "step_0000001"
    run("train", root, *SMALL, ALL, "steps=3", "run=resumed", f"resume='{origin}'")
    expected, resumed = weights(trained), weights(root / "outputs" / "resumed")
    assert all(torch.equal(expected[name], resumed[name]) for name in expected)


def test_resumption_with_another_weight_is_another_run(root, trained):
    origin = trained / "checkpoints" / "step_0000001"
    line = (*SMALL, ALL, "technique.contrastive.weight=0.1", "steps=3", "run=changed")
    with pytest.raises(ConfigError, match=r"technique\.contrastive\.weight"):
        run("train", root, *line, f"resume='{origin}'")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("technique=token_routing", "hardware.gradient_checkpointing=true"), "reads the blocks"),
        (("technique=layer_sync", "hardware.compile=true"), "reads the blocks"),
        (("technique=contrastive", "method=few_step"), "no technique of regression"),
        (("technique=contrastive", "technique.contrastive.weight=2"), "weight is 2"),
        (("technique=contrastive", *SMALLEST_AUTOENCODER), "changes the regression of a denoiser"),
        (("technique=token_routing", "model=unet"), "need all of their image tokens"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(root, trained, lines, message):
    network = [] if any("model=" in line for line in lines) else SMALL
    if "method=few_step" in lines:
        lines = (*lines, f"init='{trained}'")
    with pytest.raises(ConfigError, match=message):
        Parts.from_config(settings("train", root, *network, *lines)).check()


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_technique_goes_with_a_method_that_adds_to_a_base(root, trained, method):
    lines = ("technique=[contrastive,token_routing]", f"init='{trained}'", f"method={method}")
    run("train", root, *SMALL, *lines, "steps=1", f"run={method}")
    assert directory.newest_valid(root / "outputs" / method / "checkpoints")[0].step == 1
