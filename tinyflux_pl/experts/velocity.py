"""The teacher's velocity at each bucket, a regression target of the student; it fills no port."""

from collections.abc import Sequence
from dataclasses import dataclass
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
from tinyflux_pl.experts.int8_storage import from_levels, to_levels
from tinyflux_pl.experts.teacher import Teacher
from tinyflux_pl.objectives.teacher_velocity import expected

SCALE = "velocity_scale"


@dataclass(frozen=True)
class Int8Spec(ExpertSpec):
    """Velocities as levels, and their scales in the store's own dtype."""

    def dtype_of(self, array: str, store_dtype: torch.dtype) -> torch.dtype:
        """int8 for the levels."""
        return torch.int8 if array == VELOCITY else store_dtype


class Velocity:
    """Implements core.target_expert.TargetExpert: the predictions of the teacher called `teacher`.

    `seed` is that of the extraction (teacher.seed), from which the noise is drawn again. With
    `int8` they are cached as levels (int8_storage).
    """

    def __init__(
        self,
        teacher: str,
        t_buckets: Sequence[float] = T_BUCKETS,
        seed: int = 0,
        int8: bool = False,
    ) -> None:
        self.name = f"{teacher}_{VELOCITY}"
        times = tuple(float(t) for t in t_buckets)
        kind, shapes = (Int8Spec, {SCALE: ()}) if int8 else (ExpertSpec, {})
        self.spec = kind(self.name, shapes, times, like_latents=(VELOCITY,))
        self.seed, self.int8 = seed, int8

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
        values = selected.squeeze(1).float()
        if not self.int8:
            return values
        scales = experts[f"{self.name}.{SCALE}"].take_along_dim(buckets[:, None], 1)
        return from_levels(values, scales.squeeze(1))

    def extractor(self, teacher: Teacher, student_path: Path, seed: int) -> "VelocityExtractor":
        """The extractor of these velocities; the teacher has the student's codec."""
        times = self.spec.t_buckets
        return VelocityExtractor(self.name, teacher, student_path, times, seed, self.int8)


class VelocityExtractor(BucketExtractor):
    """Extracts NAME.velocity (B, K, C, H, W), a velocity of the student's path at its buckets.

    The teacher sees the noise of its own clock at the student's log-SNR; its prediction gives the
    data and the noise that it expects, and these the velocity alpha'(t) data + sigma'(t) noise.
    With `int8` NAME.velocity are levels, beside NAME.velocity_scale (B, K).
    """

    def __init__(
        self,
        name: str,
        teacher: Teacher,
        student_path: Path,
        t_buckets: Sequence[float] = T_BUCKETS,
        seed: int = 0,
        int8: bool = False,
    ) -> None:
        self.name, self.int8 = name, int8
        super().__init__(teacher, student_path, t_buckets, seed)

    def fingerprint(self) -> dict[str, Any]:
        """Plain data that determines the velocities, and how they are stored."""
        return super().fingerprint() | ({"levels": "int8"} if self.int8 else {})

    def extract(
        self, latents: Tensor, text: TextEmbeddings, sample_ids: Sequence[int]
    ) -> dict[str, Tensor]:
        """The teacher's latents (B, C, H, W) and text -> the velocities, fp32 or levels."""
        expected = super().extract(latents, text, sample_ids)
        data, noise = (expected[f"{self.name}.{part}"] for part in ("data", "noise"))
        t = torch.tensor(self.t_buckets, device=data.device).repeat(len(data))
        velocity = self.student_path.velocity(data.flatten(0, 1), noise.flatten(0, 1), t)
        velocity = require_finite(velocity, "the velocities").view_as(data)
        if not self.int8:
            return {f"{self.name}.{VELOCITY}": velocity}
        levels, scale = to_levels(velocity)
        return {f"{self.name}.{VELOCITY}": levels, f"{self.name}.{SCALE}": scale}

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
        needs = "a masked picture" if network.inpaint_channels else "positions of tokens"
        raise ConfigError(
            f"{network.name} predicts from {needs}, and extraction shows captions alone",
            where=where,
            cure="choose a teacher of captions",
        )
