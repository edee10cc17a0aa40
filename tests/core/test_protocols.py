"""A minimal part built from each protocol alone runs through the real callers."""

import ast
import inspect
import textwrap

import pytest
import torch

from tests.core.minimal_parts import (
    MinimalCodec,
    MinimalDenoiser,
    MinimalExpert,
    MinimalExtractor,
    MinimalPath,
    MinimalRecords,
    MinimalText,
    MinimalVerifier,
    batch,
)
from tinyflux_pl.cache.sample_keys import keys_of
from tinyflux_pl.cache.store import ENCODINGS, CacheStore
from tinyflux_pl.codecs.registry import CODECS
from tinyflux_pl.core.protocols import Codec, Denoiser, Expert, Extractor, Path, TextEncoder
from tinyflux_pl.core.record import Records
from tinyflux_pl.core.verifier import Verifier
from tinyflux_pl.data.tasks.prompt_accuracy import PromptAccuracy
from tinyflux_pl.diffusion.guidance import Guidance
from tinyflux_pl.diffusion.timesteps import LogitNormal
from tinyflux_pl.extraction import encode as extraction
from tinyflux_pl.objectives.flow import FlowObjective
from tinyflux_pl.objectives.validation import FixedGrid
from tinyflux_pl.sampling.images import ImageSampler
from tinyflux_pl.sampling.loop import SamplerSettings
from tinyflux_pl.text.registry import ENCODERS

PARTS = (
    (MinimalPath, Path),
    (MinimalDenoiser, Denoiser),
    (MinimalCodec, Codec),
    (MinimalText, TextEncoder),
    (MinimalRecords, Records),
    (MinimalExtractor, Extractor),
    (MinimalExpert, Expert),
    (MinimalVerifier, Verifier),
)
# without defaults
STRUCTURAL = [(part, protocol) for part, protocol in PARTS if protocol not in part.__mro__]


@pytest.mark.parametrize(("part", "protocol"), PARTS)
def test_a_minimal_part_has_every_member_of_its_protocol(part, protocol):
    assert isinstance(part(), protocol)


@pytest.mark.parametrize(("part", "protocol"), STRUCTURAL)
def test_a_minimal_part_has_no_member_beyond_its_protocol(part, protocol):
    members = {name for name in dir(part) if not name.startswith("_")}
    assert members == {
        name for name in (*dir(protocol), *protocol.__annotations__) if not name.startswith("_")
    }


@pytest.mark.parametrize("protocol", [Codec, TextEncoder])
def test_a_part_that_lacks_a_required_member_cannot_be_built(protocol):
    with pytest.raises(TypeError, match="abstract"):
        type("Incomplete", (protocol,), {})()


def subclasses(kind):
    """A class and those of this project that derive from it."""
    children = (c for c in kind.__subclasses__() if c.__module__.startswith("tinyflux_pl."))
    return {kind, *(leaf for child in children for leaf in subclasses(child))}


def assigned(part):
    """Names of the attributes that a class's own code assigns to self."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(part)))
    attributes = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute))
    stored = (node for node in attributes if isinstance(node.ctx, ast.Store))
    return {node.attr for node in stored if getattr(node.value, "id", "") == "self"}


@pytest.mark.parametrize(("protocol", "registry"), [(Codec, CODECS), (TextEncoder, ENCODERS)])
def test_no_attribute_of_a_part_hides_a_method_of_its_protocol(protocol, registry):
    methods = {name for name, member in vars(protocol).items() if inspect.isfunction(member)}
    parts = subclasses(protocol) | {part for part in registry.values() if inspect.isclass(part)}
    assert len(parts) > 3
    assert not {f"{part.__name__}.{name}" for part in parts for name in methods & assigned(part)}


def test_the_objective_and_validation_accept_minimal_parts():
    denoiser, null = MinimalDenoiser(), MinimalText().null()
    objective = FlowObjective(LogitNormal(), null, [MinimalExpert()], weighting="min_snr")
    terms = objective.loss(denoiser, batch(), step=0)
    assert terms.keys() == {"flow", "minimal"}
    torch.stack(list(terms.values())).sum().backward()
    assert denoiser.weight.grad is not None
    assert FixedGrid((0.25, 0.75)).errors(denoiser, batch())["validation/loss"] > 0


@pytest.mark.parametrize("solver", ["euler", "heun", "dpmpp_2m"])
@pytest.mark.parametrize("rule", ["cfg", "apg"])
def test_the_sampler_accepts_minimal_parts_and_reaches_their_data(solver, rule):
    settings = SamplerSettings(4, solver, Guidance(2.0, rule))
    sampler = ImageSampler(MinimalCodec(), MinimalText(), settings, (4, 4), finite=True)
    images = sampler.images(MinimalDenoiser(), ["red", "blue"])
    assert images.shape == (2, 3, 4, 4)
    assert images.abs().max() < 1e-5, "the denoiser predicts zero data"


def test_extraction_accepts_minimal_parts(tmp_path):
    records, codec, text, expert = MinimalRecords(), MinimalCodec(), MinimalText(), MinimalExpert()
    store = CacheStore.create(
        tmp_path, "minimal", len(records), 2, records.fingerprint(), lambda: keys_of(records)
    )
    store.begin_group(ENCODINGS, extraction.encodings_fingerprint(codec, text, "float32"))
    assert extraction.encode(store, records, codec, text, torch.float32, "minimal", batch=2) == 4
    extractor = expert.extractor(None, MinimalPath(), 0)
    store.begin_group("minimal", extractor.fingerprint())
    extracted = extraction.extract(
        store, records, extractor, codec, text, True, torch.float32, "32-true", "minimal", batch=2
    )
    assert extracted == 4 and store.complete("minimal")


def test_prompt_accuracy_counts_every_claim_of_a_minimal_verifier():
    metric = PromptAccuracy(MinimalVerifier())
    metric.update(torch.stack([torch.ones(3, 4, 4), -torch.ones(3, 4, 4)]), ["a", "b"])
    assert {name: float(share) for name, share in metric.compute().items()} == {
        "all": 0.5,
        "bright": 0.5,
    }


def test_optional_members_have_their_documented_defaults():
    codec, text = MinimalCodec(), MinimalText()
    assert codec.to("cpu") is codec and codec.skeleton() is None and codec.bounds == (-1.0, 1.0)
    assert codec.image_size is None and codec.free() is None
    assert text.to("cpu") is text and text.skeletons() == {} and text.sequential is None
    assert text.condition_argument is None and text.free() is None
    cond = batch().conditioning()
    assert text.with_target_ids(cond, ["red", "blue"]) is cond
