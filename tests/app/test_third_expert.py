"""The documented expert (docs/extending.md), one class and one YAML, trains and samples."""

import os
import re
import sys
import types

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from tests.app.runs import CONF, SHAPES, SMALLEST, run
from tinyflux_pl.app import run as recipes
from tinyflux_pl.cache.store import CacheStore
from tinyflux_pl.checkpoints import directory
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.specs import LatentSpec, TextSpec
from tinyflux_pl.core.types import Batch, TextEmbeddings
from tinyflux_pl.denoisers.tinyflux import build
from tinyflux_pl.diffusion.paths import LinearPath
from tinyflux_pl.diffusion.timesteps import Uniform
from tinyflux_pl.experts.expert import merge_port_options
from tinyflux_pl.experts.lune import Lune
from tinyflux_pl.objectives.flow import FlowObjective

PAGE = (CONF.parent / "docs" / "extending.md").read_text()
EXAMPLES = dict(re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", PAGE, re.DOTALL))
MODULE = "tinyflux_pl.experts.palette"
WIDTH = 12
SIZES = {
    "hidden_size": 16,
    "num_attention_heads": 1,
    "attention_head_dim": 16,
    "axes_dims_rope": (4, 6, 6),
    "num_double_layers": 1,
    "num_single_layers": 1,
}


@pytest.fixture(scope="module")
def palette():
    """The page's module, as if its file lay in the package."""
    module = types.ModuleType(MODULE)
    sys.modules[MODULE] = module
    exec(compile(EXAMPLES["tinyflux_pl/experts/palette.py"], "palette.py", "exec"), module.__dict__)
    yield module
    del sys.modules[MODULE]


@pytest.fixture(scope="module")
def trained(palette, tmp_path_factory):
    """The root of a short run with the page's YAML in a folder of choices of its own."""
    root = tmp_path_factory.mktemp("palette")
    conf = root / "conf"
    conf.mkdir()
    for entry in CONF.iterdir():
        if entry.name != "experts":
            os.symlink(entry, conf / entry.name)
    (conf / "experts").mkdir()
    (conf / "experts" / "palette.yaml").write_text(EXAMPLES["conf/experts/palette.yaml"])
    overrides = ["debug=fast", *SHAPES, *SMALLEST, "model=tiny", "experts=palette", "run=third"]
    overrides += [f"paths.root='{root}'", "steps=2", "preflight=false", "data.evaluation_prompts=2"]
    overrides.append("data.limit=null")
    with initialize_config_dir(str(conf), version_base=None):
        config = OmegaConf.to_container(compose("train", overrides), resolve=True)
    recipes.train({**config, "overrides": overrides})
    return root


def test_features_of_a_third_expert_are_cached(trained):
    store = CacheStore.open(trained / "cache" / "shapes" / "train")
    assert "palette" in store.groups()
    assert store.gather("palette.mean", [0, 5]).shape == (2, 10, WIDTH)


def test_the_loss_of_a_third_expert_is_trained_and_logged(trained):
    header = (trained / "outputs/third/csv/metrics.csv").read_text().splitlines()[0]
    assert "train/palette" in header.split(",")


def test_port_and_head_of_a_third_expert_are_in_the_checkpoint(trained):
    checkpoint, _ = directory.newest_valid(trained / "outputs/third/checkpoints")
    names = checkpoint.weights("raw")
    assert any(name.startswith("net.ports.palette.predictor.") for name in names)
    ports = checkpoint.config["denoiser"]["config"]["config"]["ports"]
    assert ports == {"palette": {"kind": "vector", "width": WIDTH}}


def test_a_checkpoint_samples_without_the_teacher(trained):
    checkpoint = trained / "outputs/third"
    run("generate", trained, f"checkpoint='{checkpoint}'", "prompt='a red circle'", "n=1", "seed=1")
    assert list((trained / "outputs").rglob("*.png"))


def batch_of(samples):
    text = TextEmbeddings(
        torch.randn(samples, 3, 4),
        torch.ones(samples, 3, dtype=torch.bool),
        torch.randn(samples, 4),
    )
    return Batch(
        latents=torch.randn(samples, WIDTH, 4, 4),
        text=text,
        sample_ids=torch.arange(samples),
        dataset_ids=torch.zeros(samples, dtype=torch.long),
        captions=[""] * samples,
        experts={"palette.mean": torch.randn(samples, 10, WIDTH)},
        expert_present={"palette": torch.ones(samples, dtype=torch.bool)},
    )


def test_the_teacher_of_a_third_expert_is_dropped_out_on_schedule(palette):
    expert = palette.Palette(WIDTH, dropout=0.0, dropout_end=1.0, dropout_steps=10)
    torch.manual_seed(0)
    options = merge_port_options([expert])
    net = build(LatentSpec(WIDTH, 4), TextSpec(4, 3, 4), LinearPath(), **options, **SIZES).eval()
    torch.nn.init.normal_(net.net.final_linear.weight)
    null = TextEmbeddings(
        torch.zeros(1, 3, 4), torch.ones(1, 3, dtype=torch.bool), torch.zeros(1, 4)
    )
    objective = FlowObjective(Uniform(), null, [expert], text_dropout=0.0)
    batch = batch_of(4)
    for block in net.net.double_blocks:  # adaLN-Zero would hide the conditioning vector
        torch.nn.init.normal_(block.img_norm1.linear.weight, std=0.1)
    for step, all_taught in ((0, True), (10, False)):
        draw = objective.draw(net, batch, step)
        assert (draw.cond.port_mask["palette"] == all_taught).all()
        x_t = net.path.interpolate(batch.latents, draw.noise, draw.t)
        sampled = net(x_t, draw.t, batch.conditioning()).sample
        same = torch.equal(net(x_t, draw.t, draw.cond).sample, sampled)
        assert same != all_taught


def test_two_experts_with_one_port_are_refused(palette):
    class Vec(palette.Palette):
        columns = {"mean": "vec"}  # noqa: RUF012
        port_kinds = {"vec": "vector"}  # noqa: RUF012

    with pytest.raises(ConfigError, match="two experts feed the port 'vec'"):
        merge_port_options([Lune(3), Vec(WIDTH)])
    with pytest.raises(ConfigError, match="two experts feed the port 'palette'"):
        merge_port_options([palette.Palette(WIDTH), palette.Palette(WIDTH)])
