"""A teacher's velocity: its conversion to the student's path, its noise, its latent space."""

import pytest
import torch
from torch import nn

from tests.experts.conftest import make_teacher
from tinyflux_pl.codecs.pixel_folding import PixelFolding
from tinyflux_pl.core.errors import ConfigError, DataError, SpecMismatch
from tinyflux_pl.core.target_expert import TargetExpert
from tinyflux_pl.core.types import Prediction
from tinyflux_pl.diffusion.paths import LinearPath, VPPath
from tinyflux_pl.diffusion.prediction import target
from tinyflux_pl.experts.velocity import Velocity, require_same_latents

BUCKETS = (0.1, 0.5, 0.9)
IDS = [11, 22, 33, 44]


class Oracle(nn.Module):
    """Knows that all data is one picture, and so predicts without an error; keeps its inputs."""

    inpaint_channels, reads_position_ids, name = 0, False, "oracle"

    def __init__(self, picture, path, prediction):
        super().__init__()
        self.picture, self.path, self.prediction = picture, path, prediction
        self.weight = nn.Parameter(torch.zeros(1))
        self.inputs = []

    def forward(self, x, t, cond):
        self.inputs.append(x)
        alpha, sigma = (c(t).view(-1, 1, 1, 1) for c in (self.path.alpha, self.path.sigma))
        data = self.picture.expand_as(x)
        noise = (x - alpha * data) / sigma
        return Prediction(target(self.prediction, data, noise, t, self.path))


def oracle_teacher(picture, path, prediction):
    teacher = make_teacher("lune")
    teacher.network = Oracle(picture, path, prediction)
    return teacher


@pytest.fixture
def picture():
    return torch.randn(1, 12, 8, 8, generator=torch.Generator().manual_seed(5))


def extracted(teacher, student_path, latents, text, seed=7):
    expert = Velocity("lune", BUCKETS, seed)
    columns = expert.extractor(teacher, student_path, seed).extract(latents, text, IDS)
    return expert, columns


def test_velocity_satisfies_the_protocol_with_a_separate_group():
    expert = Velocity("lune", BUCKETS)
    assert isinstance(expert, TargetExpert) and expert.name == "lune_velocity"
    assert expert.spec.shapes_for((12, 8, 8)) == {"velocity": (12, 8, 8)}


@pytest.mark.parametrize("prediction", ["velocity", "v", "epsilon", "x0"])
@pytest.mark.parametrize("teacher_path", [LinearPath(), LinearPath(noise_at=1), VPPath()])
@pytest.mark.parametrize("student_path", [LinearPath(), LinearPath(noise_at=1)])
def test_a_perfect_teacher_gives_the_student_s_own_velocity_on_any_path(
    picture, samples, student_path, teacher_path, prediction
):
    latents = picture.expand(4, -1, -1, -1)
    teacher = oracle_teacher(picture, teacher_path, prediction)
    expert, columns = extracted(teacher, student_path, latents, samples[1])
    assert columns.keys() == {"lune_velocity.velocity"}
    for k, time in enumerate(BUCKETS):
        noise = expert.noise(latents.shape[1:], IDS, [k] * 4)
        expected = student_path.velocity(latents, noise, torch.full((4,), time))
        bucket = torch.full((4,), k)
        torch.testing.assert_close(expert.velocity(columns, bucket), expected, atol=2e-3, rtol=1e-3)


def test_noise_of_extraction_is_regenerated_exactly(picture, samples):
    path, (latents, text, _) = LinearPath(), samples
    teacher = oracle_teacher(picture, path, "velocity")
    expert, _ = extracted(teacher, path, latents, text)
    seen = torch.cat(teacher.network.inputs).unflatten(0, (4, len(BUCKETS)))
    times = expert.extractor(teacher, path, 7).times()
    for k in range(len(BUCKETS)):
        noise = expert.noise(latents.shape[1:], IDS, [k] * 4)
        assert torch.equal(seen[:, k], path.interpolate(latents, noise, times[k].expand(4)))


def test_a_teacher_in_another_latent_space_is_refused_with_what_differs():
    teacher = make_teacher("lune")
    require_same_latents(teacher, PixelFolding(2))
    with pytest.raises(SpecMismatch, match="channels is 12, expected 48"):
        require_same_latents(teacher, PixelFolding(4))

    class Rescaled(PixelFolding):
        def fingerprint(self):
            return {**super().fingerprint(), "scale": 3.0}

    with pytest.raises(SpecMismatch, match=r"scale is 2\.0 for the teacher and 3\.0"):
        require_same_latents(teacher, Rescaled(2))


@pytest.mark.parametrize(
    ("attribute", "value"), [("inpaint_channels", 3), ("reads_position_ids", True)]
)
def test_a_teacher_that_needs_more_than_a_caption_is_refused(attribute, value):
    teacher = make_teacher("lune")
    setattr(teacher.network, attribute, value)
    with pytest.raises(ConfigError, match="extraction shows captions alone"):
        require_same_latents(teacher, PixelFolding(2))


def test_a_batch_without_the_velocities_is_refused():
    with pytest.raises(DataError, match=r"no .lune_velocity\.velocity. of 3 buckets"):
        Velocity("lune", BUCKETS).velocity({}, torch.zeros(2, dtype=torch.long))
