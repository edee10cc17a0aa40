"""The teacher's velocity at each bucket, a regression target of the student; it fills no port."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tinyflux_pl.core.errors import ConfigError, DataError, SpecMismatch
from tinyflux_pl.core.interpreter import extraction
from tinyflux_pl.core.protocols import Codec, Path
from tinyflux_pl.core.specs import ExpertSpec, compare
from tinyflux_pl.core.types import VELOCITY, Conditioning, TextEmbeddings
from tinyflux_pl.experts.bucket_interpolation import T_BUCKETS
from tinyflux_pl.experts.feature_capture import BucketExtractor, extraction_noise, require_finite
from tinyflux_pl.experts.teacher import Teacher
from tinyflux_pl.objectives.teacher_velocity import expected


class Velocity:
    """Of core.target_expert.TargetExpert: the predictions of the teacher called `teacher`.

    `seed` is that of the extraction (teacher.seed), from which the noise is drawn again.
    """

    def __init__(self, teacher: str, t_buckets: Sequence[float] = T_BUCKETS, seed: int = 0) -> None:
        self.name = f"{teacher}_{VELOCITY}"
        times = tuple(float(t) for t in t_buckets)
        self.spec = ExpertSpec(self.name, {}, times, like_latents=(VELOCITY,))
        self.seed = seed

    def noise(
        self, shape: Sequence[int], sample_ids: Sequence[int], buckets: Sequence[int]
    ) -> Float[Tensor, "b c h w"]:
        """The extraction's own noise for these pairs of sample and bucket, equal to the bit."""
        return extraction_noise(shape, self.seed, sample_ids, buckets)

    def velocity(
        self, experts: dict[str, Tensor], buckets: Int[Tensor, " b"]
    ) -> Float[Tensor, "b c h w"]:
        """The cached velocity at one bucket a sample; DataError where the batch has none."""
        key = f"{self.name}.{VELOCITY}"
        if key not in experts or experts[key].shape[1] != len(self.spec.t_buckets):
            has = {name: tuple(array.shape[1:]) for name, array in experts.items()}
            raise DataError(
                f"the batch has no {key!r} of {len(self.spec.t_buckets)} buckets, it has {has}",
                where="pathway.velocity",
                cure=f"extract it first: {extraction('pathway=velocity')}",
            )
        selected = experts[key].take_along_dim(buckets.view(-1, 1, 1, 1, 1), 1)
        return selected.squeeze(1).float()

    def extractor(self, teacher: Teacher, student_path: Path, seed: int) -> "VelocityExtractor":
        """The extractor of these velocities; the teacher has the student's codec."""
        return VelocityExtractor(self.name, teacher, student_path, self.spec.t_buckets, seed)


class VelocityExtractor(BucketExtractor):
    """Extracts NAME.velocity (B, K, C, H, W), a velocity of the student's path at its buckets.

    The teacher sees the noise of its own clock at the student's log-SNR; its prediction gives the
    data and the noise that it expects, and these the velocity alpha'(t) data + sigma'(t) noise.
    """

    def __init__(
        self,
        name: str,
        teacher: Teacher,
        student_path: Path,
        t_buckets: Sequence[float] = T_BUCKETS,
        seed: int = 0,
    ) -> None:
        self.name = name
        super().__init__(teacher, student_path, t_buckets, seed)

    def extract(
        self, latents: Tensor, text: TextEmbeddings, sample_ids: Sequence[int]
    ) -> dict[str, Tensor]:
        """The teacher's latents (B, C, H, W) and text -> the velocities, fp32."""
        expected = super().extract(latents, text, sample_ids)
        data, noise = (expected[f"{self.name}.{part}"] for part in ("data", "noise"))
        t = torch.tensor(self.t_buckets, device=data.device).repeat(len(data))
        velocity = self.student_path.velocity(data.flatten(0, 1), noise.flatten(0, 1), t)
        name = f"{self.name}.{VELOCITY}"
        return {name: require_finite(velocity, "the velocities").view_as(data)}

    def capture(self, x: Tensor, tau: Tensor, cond: Conditioning) -> dict[str, Tensor]:
        """data and noise (rows, C, H, W) that the teacher expects at its time tau, fp32."""
        data, noise = expected(self.teacher.denoiser, x, tau, cond)
        return {"data": data, "noise": noise}


def require_same_latents(teacher: Teacher, codec: Codec) -> None:
    """Raise unless the teacher predicts latents of the student's codec, from a caption alone."""
    where = f"teacher.{teacher.name}"
    cure = "pathway=ports, or a teacher and a student with one codec="
    compare(codec.latent_spec, teacher.codec.latent_spec, f"latents of {where}", cure)
    student, teaching = codec.fingerprint(), teacher.codec.fingerprint()
    if differing := sorted(k for k in student | teaching if student.get(k) != teaching.get(k)):
        key = differing[0]
        raise SpecMismatch(
            f"velocities in another latent space: the codec's {key} is {teaching.get(key)!r} for "
            f"the teacher and {student.get(key)!r} for the student",
            where=where,
            cure=cure,
        )
    network: Any = teacher.network
    if network.inpaint_channels or network.reads_position_ids:
        needs = "a picture with a hole" if network.inpaint_channels else "positions of tokens"
        raise ConfigError(
            f"{network.name} predicts from {needs}, and extraction shows captions alone",
            where=where,
            cure="choose a teacher of captions",
        )
