"""Times the parts of the main job beside a peer in one run; prints ratios and peak memory.

    python -m benchmarks main_job [--seconds 20] [--threads 2]

The peer of the network is diffusers' FluxTransformer2DModel of the same width, depth and tokens; of
the cached batch, indexing tensors that lie in memory; of sampling, two forwards a step, one for
each side of guidance; of Muon, torch's own; of a teacher, one copy with all threads within each
operation; of trimmed words, the same step with every caption padded to 24 words, as the
unconditional's padding once made it. Rounds alternate (A B A B), figures are medians. How threads
wait is a setting of the process: run this once as it is and once under `GOMP_SPINCOUNT=1000`, alone
and beside a busy neighbour; and the allocator once as it is and once under
`MALLOC_TRIM_THRESHOLD_=536870912 MALLOC_MMAP_THRESHOLD_=33554432`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch

from benchmarks.main_job_parts import (
    BATCH,
    IMAGES,
    cached_batch,
    muon_step,
    sampling,
    teacher,
    training_step,
    trimmed_words,
)
from tinyflux_pl.core.precision import choose


def main(arguments: Sequence[str]) -> int:
    """Time every part and print the table; returns 0."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="for each part")
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    from tinyflux_pl.training.throughput import peak_memory_bytes

    precision = choose("auto", "cpu")
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {precision}, batch {BATCH}"
    )
    rows = [
        (
            "training step",
            BATCH,
            "images/s",
            "diffusers Flux",
            training_step(options.seconds, precision),
        ),
        (
            "trimmed words",
            BATCH,
            "images/s",
            "24 words",
            trimmed_words(options.seconds, precision),
        ),
        ("cached batch", BATCH, "samples/s", "in memory", cached_batch(options.seconds)),
        (
            "sampling, 8 steps",
            16,
            "images/s",
            "two forwards",
            sampling(options.seconds, precision),
        ),
        ("Muon", 1, "steps/s", "torch.optim.Muon", muon_step(options.seconds)),
        (
            "Lune's features",
            IMAGES,
            "images/s",
            "one copy",
            teacher("lune", options.seconds, precision),
        ),
        (
            "Sol's statistics",
            IMAGES,
            "images/s",
            "one copy",
            teacher("sol", options.seconds, precision),
        ),
    ]
    for name, count, unit, against, (mine, other) in rows:
        rate, ratio = f"{count / mine:12,.0f} {unit:<10}", other / mine
        print(f"{name:<18}{rate} against {against}: {count / other:12,.0f}   ratio {ratio:.2f}")
    print(f"peak memory       {peak_memory_bytes() / 2**20:12,.0f} MiB")
    return 0
