"""Errors of the dtypes that cached velocities are stored in: python -m benchmarks velocity_storage.

The embedded teachers' velocities of held-out shapes at the default times; for each dtype the root
of the mean squared difference to fp32 over that of the velocities, the same at the worst time, and
bytes for a sample of these 12 x 16 x 16 latents. Beside it stands the teacher's own error, its
difference to the velocity of data and noise.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tinyflux_pl.data.tasks.shapes.records import Shapes
from tinyflux_pl.diffusion.paths import LinearPath
from tinyflux_pl.experts.bucket_interpolation import T_BUCKETS
from tinyflux_pl.experts.int8_storage import from_levels, to_levels
from tinyflux_pl.experts.teacher import embedded
from tinyflux_pl.experts.velocity import Velocity
from tinyflux_pl.extraction.encode import teacher_inputs

SAMPLES, SEED = 128, 0


def stored(velocity: Tensor, dtype: str) -> tuple[Tensor, int]:
    """Velocities (B, K, C, H, W) after a cache of a dtype, and its bytes for a sample."""
    if dtype != "int8":
        values = velocity.to(getattr(torch, dtype))
        return values.float(), values[0].nbytes
    levels, scale = to_levels(velocity)
    again = from_levels(levels.float().flatten(0, 1), scale.flatten())
    return again.view_as(velocity), levels[0].nbytes + 2 * scale[0].numel()


def relative(difference: Tensor, velocity: Tensor) -> Tensor:
    """Relative error (K,) at each time."""
    dims = (0, 2, 3, 4)
    return (difference.square().mean(dims) / velocity.square().mean(dims)).sqrt()


@torch.inference_mode()
def main(arguments: list[str]) -> int:
    """Print a row for each teacher and dtype."""
    if arguments:
        raise SystemExit("python -m benchmarks velocity_storage takes no words")
    records = Shapes("validation", SAMPLES, 32, SEED)
    block = [records[i] for i in range(SAMPLES)]
    ids = [record.sample_id for record in block]
    path = LinearPath()
    for name in ("lune", "sol"):
        teacher = embedded(name)
        latents, text = teacher_inputs(block, teacher.codec, teacher.text, torch.float16)
        expert = Velocity(name, T_BUCKETS, SEED)
        columns = expert.extractor(teacher, path, SEED).extract(latents, text, ids)
        velocity = columns[f"{expert.name}.velocity"]
        parts = []
        for k, time in enumerate(T_BUCKETS):
            noise = expert.noise(latents.shape[1:], ids, [k] * SAMPLES)
            parts.append(path.velocity(latents, noise, torch.full((SAMPLES,), time)))
        error = relative(velocity - torch.stack(parts, 1), velocity)
        print(f"{name}: own error {error.mean():.2%}, least {error.min():.2%}")
        for dtype in ("float16", "bfloat16", "int8"):
            values, size = stored(velocity, dtype)
            error = relative(values - velocity, velocity)
            print(f"{name} {dtype:9} {error.mean():.3%}  worst {error.max():.3%}  {size} bytes")
    return 0
