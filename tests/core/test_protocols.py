"""A minimal part built from each protocol alone runs through the real callers: objective, sampler, extraction, ..."""

import pytest
import torch
from torch import nn

from tinyflux_pl.cache.sample_keys import keys_of
from tinyflux_pl.cache.store import ENCODINGS, CacheStore
from tinyflux_pl.core.protocols import Codec, Denoiser, Expert, Extractor, Path, Record, Records, TextEncoder, Verifier
from tinyflux_pl.core.specs import ExpertSpec, LatentSpec, TextSpec
from tinyflux_pl.core.types import Batch, Prediction, PromptLength, TextEmbeddings
from tinyflux_pl.data.tasks.prompt_accuracy import PromptAccuracy
from tinyflux_pl.diffusion.guidance import Guidance
from tinyflux_pl.diffusion.timesteps import LogitNormal
from tinyflux_pl.extraction import encode as extraction
from tinyflux_pl.objectives.flow import FlowObjective
from tinyflux_pl.objectives.validation import FixedGrid
from tinyflux_pl.sampling.images import ImageSampler
from tinyflux_pl.sampling.loop import SamplerSettings

CHANNELS, WIDTH, LENGTH = 3, 4, 2


class MinimalPath:
    """x_t = (1 - t) data + t noise, with the members of the protocol and no others."""

    name, t_noise, t_data = "minimal", 1.0, 0.0

    def alpha(self, t):
        return 1 - t

    def sigma(self, t):
        return t

    def alpha_rate(self, t):
        return -torch.ones_like(t)

    def sigma_rate(self, t):
        return torch.ones_like(t)

    def log_snr(self, t):
        return 2 * torch.logit(1 - t, eps=1e-6)

    def time_of_log_snr(self, log_snr):
        return torch.sigmoid(-log_snr / 2)

    def interpolate(self, data, noise, t):
        t = t.reshape(-1, 1, 1, 1)
        return (1 - t) * data + t * noise

    def velocity(self, data, noise, t):
        return noise - data

    def config(self):
        return {}


class MinimalDenoiser:
    """Predicts zero data; no torch module."""

    name, lora_targets, prediction, ports, patch_size, image_size = "minimal", (), "x0", ("vec",), 1, None
    reads_guidance = reads_references = reads_position_ids = False
    reference_size, inpaint_channels, overflows, weight_files = None, 0, "", ()
    path, latent_spec, text_spec = MinimalPath(), LatentSpec(CHANNELS, 1), TextSpec(WIDTH, LENGTH, WIDTH)

    def __init__(self):
        self.weight = nn.Parameter(torch.zeros(1))

    def __call__(self, x_t, t, cond):
        return Prediction(x_t * self.weight, {"vec": self.weight.expand(len(x_t), 1)})

    def require_size(self, height, width):
        pass

    def enable_gradient_checkpointing(self):
        pass

    def parameters(self):
        yield self.weight

    def config_dict(self):
        return {}


class MinimalCodec(Codec):
    name, latent_spec = "minimal", LatentSpec(CHANNELS, 1)

    def encode(self, images):
        return images / 2

    def decode(self, latents):
        return latents * 2

    def config(self):
        return {}

    def fingerprint(self):
        return {"codec": self.name}


class MinimalText(TextEncoder):
    name, text_spec = "minimal", TextSpec(WIDTH, LENGTH, WIDTH)

    def encode(self, prompts):
        size = torch.tensor([[float(len(prompt))] for prompt in prompts]).expand(-1, WIDTH)
        tokens = size[:, None].expand(-1, LENGTH, -1)
        return TextEmbeddings(tokens, torch.ones(len(prompts), LENGTH, dtype=torch.bool), size)

    def null(self):
        return self.encode([""])

    def lengths(self, prompts):
        return [PromptLength(1, 0) for _ in prompts]

    def config(self):
        return {}

    def fingerprint(self):
        return {"text": self.name}


class MinimalRecords:
    name, reads_files = "minimal", False

    def __len__(self):
        return 4

    def __getitem__(self, index):
        image = torch.full((4, 4, 3), index, dtype=torch.uint8).numpy()
        return Record(image, f"number {index}", index)

    def fingerprint(self):
        return {"records": self.name}

    def sample_keys(self):
        return None


class MinimalExtractor:
    name, device = "minimal", torch.device("cpu")

    def fingerprint(self):
        return {"expert": self.name}

    def extract(self, latents, text, sample_ids):
        return {"minimal.features": latents.mean((1, 2, 3))[:, None, None].expand(-1, 2, 1)}


class MinimalExpert:
    name, spec = "minimal", ExpertSpec("minimal", {"features": (1,)}, (0.0, 1.0))

    def ports(self, experts, t):
        return {"vec": experts["minimal.features"].mean(1)}

    def losses(self, heads, targets, present):
        return (heads["vec"] - targets["vec"]).square().mean()

    def weight_at(self, step):
        return 1.0

    def dropout_at(self, step):
        return 0.0

    def port_options(self):
        return {}

    def extractor(self, teacher, student_path, seed):
        return MinimalExtractor()


class MinimalVerifier:
    claims = ("bright",)

    def stated(self, prompts):
        return {"bright": torch.ones(len(prompts), dtype=torch.bool)}

    def check(self, images, prompts):
        bright = images.mean((1, 2, 3)) > 0
        return {"bright": bright, "all": bright}


def batch():
    numbers = torch.arange(2)
    captions = ["red", "blue"]
    experts = {"minimal.features": torch.ones(2, 2, 1)}
    present = {"minimal": torch.ones(2, dtype=torch.bool)}
    latents = torch.ones(2, CHANNELS, 4, 4)
    return Batch(latents, MinimalText().encode(captions), numbers, numbers, captions, experts, present)


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
STRUCTURAL = [(part, protocol) for part, protocol in PARTS if protocol not in part.__mro__]  # without defaults


@pytest.mark.parametrize(("part", "protocol"), PARTS)
def test_a_minimal_part_has_every_member_of_its_protocol(part, protocol):
    assert isinstance(part(), protocol)


@pytest.mark.parametrize(("part", "protocol"), STRUCTURAL)
def test_a_minimal_part_has_no_member_beyond_its_protocol(part, protocol):
    members = {name for name in dir(part) if not name.startswith("_")}
    assert members == {name for name in (*dir(protocol), *protocol.__annotations__) if not name.startswith("_")}


@pytest.mark.parametrize("protocol", [Codec, TextEncoder])
def test_a_part_that_lacks_a_required_member_cannot_be_built(protocol):
    with pytest.raises(TypeError, match="abstract"):
        type("Incomplete", (protocol,), {})()


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
    store = CacheStore.create(tmp_path, "minimal", len(records), 2, records.fingerprint(), lambda: keys_of(records))
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
    assert {name: float(share) for name, share in metric.compute().items()} == {"all": 0.5, "bright": 0.5}


def test_optional_members_have_their_documented_defaults():
    codec, text = MinimalCodec(), MinimalText()
    assert codec.to("cpu") is codec and codec.skeleton() is None and codec.bounds == (-1.0, 1.0)
    assert codec.image_size is None and codec.free() is None
    assert text.to("cpu") is text and text.skeletons() == {} and text.sequential is None
    assert text.condition_argument is None and text.free() is None
    cond = batch().conditioning()
    assert text.with_target_ids(cond, ["red", "blue"]) is cond
