"""A source of a mixture has only its own experts; absent features have no substitute."""

import pytest
import torch

from tests.app.runs import run, settings
from tinyflux_pl.app.caches.prepare import prepare
from tinyflux_pl.app.caches.sources import datasets, open_sources
from tinyflux_pl.app.components import Parts
from tinyflux_pl.app.preflight import cache_needs
from tinyflux_pl.cache.store import CacheStore
from tinyflux_pl.config import schema
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.specs import LatentSpec, TextSpec
from tinyflux_pl.core.types import Batch, TextEmbeddings
from tinyflux_pl.denoisers.tinyflux import build
from tinyflux_pl.diffusion.paths import LinearPath
from tinyflux_pl.diffusion.timesteps import Uniform
from tinyflux_pl.experts.lune import Lune
from tinyflux_pl.experts.sol import Sol
from tinyflux_pl.objectives.flow import FlowObjective

MIXED = (
    *("data=mixture", "experts=lune_sol", "data.shard_size=8"),
    *("data.sources.shapes.train.count=6", "data.sources.shapes.validation.count=2"),
    *("data.sources.digits.train.count=4", "data.sources.digits.validation.count=2"),
    "data.sources.digits.experts=[lune]",
)


def test_only_the_experts_that_a_source_has_are_extracted_and_served(tmp_path):
    config = run("extract", tmp_path, *MIXED)
    groups = {
        name: set(CacheStore.open(tmp_path / "cache" / name / "train").groups())
        for name in ("shapes", "digits")
    }
    assert groups == {"shapes": {"encodings", "lune", "sol"}, "digits": {"encodings", "lune"}}
    parts = Parts.from_config(schema.read(config, "extract"))
    train, _ = datasets(prepare(parts), in_memory=False)
    batch = train.__getitems__([0, 7, 5, 9])
    assert batch.dataset_ids.tolist() == [0, 1, 0, 1]
    assert batch.expert_present["lune"].tolist() == [True] * 4
    assert batch.expert_present["sol"].tolist() == [True, False, True, False]
    sources = open_sources(parts)
    needed = [need for source in sources for need in cache_needs.needs(source.train)]
    assert [(n.source, n.group, n.rows) for n in needed] == [
        *(("shapes", group, 0) for group in ("encodings", "lune", "sol")),
        *(("digits", group, 0) for group in ("encodings", "lune")),
    ]
    stores = {s.name: s.train.store.groups() for s in cache_needs.sampled(parts, sources)}
    assert set(stores["digits"]) == {"encodings", "lune"}


@pytest.mark.parametrize(
    ("lines", "where", "says"),
    [
        (
            ("experts=lune", "data.sources.digits.experts=[sol]"),
            "data.sources.digits.experts",
            "'sol'",
        ),
        (
            ("experts=none", "data.sources.digits.experts=[lune]"),
            "data.sources.digits.experts",
            "the run has none",
        ),
        (("data.sources.digits.experts=[lnue]",), "data.sources.digits.experts", "'lnue'"),
        (
            ("data.sources.digits.experts=[]", "data.sources.shapes.experts=[lune]"),
            "experts.sol",
            "no source has",
        ),
    ],
)
def test_incompatible_experts_are_refused_before_data_is_read(tmp_path, lines, where, says):
    with pytest.raises(ConfigError, match=says) as caught:
        Parts.from_config(settings("train", tmp_path, *MIXED, *lines))
    assert caught.value.where == where and caught.value.cure


def test_values_of_absent_expert_features_change_neither_loss_nor_gradient():
    """Features, targets and the weighting map: values in absent rows do not change the step."""
    sizes = {
        "hidden_size": 32,
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "axes_dims_rope": (4, 6, 6),
    }
    depth = {"num_double_layers": 1, "num_single_layers": 1, "patch_size": 1}
    torch.manual_seed(0)
    net = build(
        LatentSpec(2, 2), TextSpec(4, 3, 4), LinearPath(), lune_dim=3, sol=True, **sizes, **depth
    )
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    null = TextEmbeddings(
        torch.zeros(1, 1, 4), torch.ones(1, 1, dtype=torch.bool), torch.zeros(1, 4)
    )
    objective = FlowObjective(
        Uniform(),
        null,
        [Lune(3, ramp_steps=0, dropout=0.0), Sol(ramp_steps=0, dropout=0.0)],
        map_weighting=True,
    )
    present = torch.tensor([True, False, True, False])
    shapes = {"lune.features": (3,), "sol.stats": (4,), "sol.spatial": (8, 8)}
    real = {key: torch.rand(4, 10, *shape) for key, shape in shapes.items()}

    def step(filled, presence=present):
        rows = {
            k: torch.where(presence.view(4, *(1,) * (v.ndim - 1)), v, filled)
            for k, v in real.items()
        }
        text = TextEmbeddings(
            torch.ones(4, 3, 4), torch.ones(4, 3, dtype=torch.bool), torch.ones(4, 4)
        )
        latents = torch.randn(4, 2, 4, 4, generator=torch.Generator().manual_seed(1))
        some = {"lune": presence, "sol": presence}
        ids = torch.arange(4)
        batch = Batch(
            latents, text, ids, torch.zeros(4).long(), ["x"] * 4, experts=rows, expert_present=some
        )
        net.zero_grad()
        torch.manual_seed(2)  # the dropout of the network itself
        terms = objective.loss(net, batch, 5)
        torch.stack(list(terms.values())).sum().backward()
        return {k: v.detach() for k, v in terms.items()}, [
            p.grad.clone() for p in net.parameters() if p.grad is not None
        ]

    zeros, other, all_present = step(0.0), step(1e3), step(1e3, torch.ones(4, dtype=torch.bool))
    assert zeros[0] == other[0] and all(map(torch.equal, zeros[1], other[1]))
    assert all(g.isfinite().all() for g in zeros[1]) and all_present[0] != zeros[0]
