"""FLUX.1 schnell teaches TinyFlux in FLUX's latents, here with tiny random weights."""

import pytest

from tests import releases_flux1
from tests.app.runs import SMALLEST, run
from tinyflux_pl.cache.store import CacheStore
from tinyflux_pl.core.errors import SpecMismatch

TEACHER = (
    *("model=tiny", *SMALLEST, "experts=denoiser", "pathway=velocity", "teacher=flux1_schnell"),
    *("teacher.denoiser.network.dtype=float32", "teacher.denoiser.text.dtype=float32"),
    *("data.sources.shapes.train.count=4", "data.sources.shapes.validation.count=2"),
    *("data.evaluation_prompts=0", "pathway.velocity.t_buckets=[0.2,0.6]", "steps=2"),
    *("callbacks.log_every_steps=1", "hardware.batch_size=2", "callbacks.preview.count=1"),
)


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    return releases_flux1.flux1(tmp_path_factory.mktemp("schnell"), "schnell")


def test_flux_teaches_tinyflux_in_its_latents(release, tmp_path):
    lines = (f"teacher.weights='{release}'", "teacher.denoiser.text.length=16")
    student = ("codec=flux1", f"codec.weights='{release}'", "model.patch_size=1", "run=taught")
    run("train", tmp_path, *TEACHER, *lines, *student)
    store = CacheStore.open(tmp_path / "cache" / "shapes" / "train")
    velocity, latents = (store.gather(k, [0]) for k in ("denoiser_velocity.velocity", "latents"))
    assert velocity.shape == (1, 2, *latents.shape[1:]) and latents.shape[1] == 16
    described = store.groups()["denoiser_velocity"]["teacher"]
    assert described["teacher"] == "flux1_schnell" and len(described["weights"]) == 64
    metrics = (tmp_path / "outputs/taught/csv/metrics.csv").read_text()
    assert "train/velocity_share" in metrics.splitlines()[0]


def test_a_student_in_other_latents_is_refused_by_their_specs(release, tmp_path):
    with pytest.raises(SpecMismatch, match="channels"):
        run("train", tmp_path, *TEACHER, f"teacher.weights='{release}'", "run=other")
