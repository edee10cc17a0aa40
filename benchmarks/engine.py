"""Each technique of the engine beside diffusers' own pipeline: python -m benchmarks engine.

    python -m benchmarks engine [--rows plain guidance ...] [--subjects tinyflux flux1]
        [--checkpoint RUN] [--rounds 5]

Ours and diffusers' draw in turns in one process; figures are medians of CPU seconds, since other
jobs stretch a clock. Memory is counted (engine.live_bytes): weights, and the most that is alive of
what a draw allocates. PSNR is to our own picture without the technique. Rows are written to
benchmarks/results/engine.json one by one, so that a part can be run again; `ratio` is the worst of
theirs / ours. Prints the table of docs/inference.md.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.engine_rows import ONLY, ROWS, Draw, Row
from benchmarks.engine_subjects import subjects
from benchmarks.machine import machine
from tinyflux_pl.core.files import read_object, write_json
from tinyflux_pl.engine.live_bytes import LiveBytes, storage_bytes

RESULT = Path(__file__).parent / "results" / "engine.json"
HEAD = (
    "| network | technique | ours | diffusers | ratio | ours, memory | diffusers, memory | PSNR |"
)


def decibels(picture: Tensor, plain: Tensor) -> float | None:
    """PSNR of pictures in [-1, 1]; None for equal ones."""
    error = (picture.clamp(-1, 1) - plain.clamp(-1, 1)).double().square().mean().item()
    return 10 * math.log10(4 / error) if error else None


def counted(draw: Draw, weights: int) -> int:
    """Bytes of weights and of the most that is alive in a draw."""
    with torch.inference_mode(), LiveBytes() as counter:
        draw()
    return weights + max(live for _, live in counter.history)


def weights_of(*networks: Any) -> int:
    """Bytes of parameters and buffers of networks; None counts nothing."""
    present = [network for network in networks if network is not None]
    return storage_bytes([[*n.parameters(), *n.buffers()] for n in present])


def medians(draws: list[Draw], rounds: int) -> list[float]:
    """Median CPU seconds of each, drawn in turns after one draw to warm up."""
    for draw in draws:
        draw()
    taken: list[list[float]] = [[] for _ in draws]
    for _ in range(rounds):
        for kept, draw in zip(taken, draws, strict=True):
            start = time.process_time()
            draw()
            kept.append(time.process_time() - start)
    return [statistics.median(kept) for kept in taken]


def measured(row: Row, rounds: int) -> dict[str, Any]:
    """Seconds, bytes and PSNR of a row, as plain data."""
    draws = [row.ours] if row.theirs is None else [row.ours, row.theirs]
    seconds = medians(draws, rounds)
    psnr = decibels(row.ours(), row.plain())
    codec = row.subject.codec.skeleton()
    mine = weights_of(row.subject.denoiser) + (0 if codec is None else weights_of(codec))
    result = {"against": row.against, "lossless": row.lossless, "psnr": psnr}
    result |= {"seconds": seconds[0], "bytes": counted(row.ours, mine - row.host)}
    if row.rates:
        result["reused"] = row.rates[-1]
    if row.theirs is not None:
        theirs = weights_of(row.peer.pipe.transformer, row.peer.pipe.vae)
        result |= {"their_seconds": seconds[1], "their_bytes": counted(row.theirs, theirs)}
        result["ratio"] = seconds[1] / seconds[0]
    return result


def table(rows: dict[str, dict[str, Any]]) -> list[str]:
    """The lines of docs/inference.md."""
    lines = [HEAD, "|---|---|---|---|---|---|---|---|"]
    for name, row in rows.items():
        network, technique = name.split("/")
        psnr = "equal" if row["psnr"] is None else f"{row['psnr']:.1f} dB"
        if "reused" in row:
            psnr += f", {row['reused']:.0%} of steps reused"
        cells = [network, technique, f"{row['seconds']:.2f} s"]
        if "ratio" in row:
            cells += [f"{row['their_seconds']:.2f} s, {row['against']}", f"{row['ratio']:.2f}"]
        else:
            cells += ["", ""]
        their_memory = f"{row['their_bytes'] / 2**20:.1f} MiB" if "their_bytes" in row else ""
        cells += [f"{row['bytes'] / 2**20:.1f} MiB", their_memory, psnr]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main(arguments: list[str]) -> int:
    """Measure, write and print; 1 if a row is slower than diffusers'."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks engine")
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--subjects", nargs="*", default=["tinyflux", "flux1"])
    parser.add_argument("--checkpoint", help="a run of model=tiny; without one, random weights")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    old = read_object(options.output) if options.output.is_file() else {}
    done: dict[str, Any] = dict(old.get("rows", {}))
    with tempfile.TemporaryDirectory() as folder:
        for subject in subjects(options.subjects, Path(folder), options.checkpoint):
            for name in options.rows:
                if subject.name not in ONLY.get(name, (subject.name,)):
                    continue
                row = measured(ROWS[name](subject), options.rounds)
                done[f"{subject.name}/{name}"] = {**row, "load": machine()["load"]}
                ratios = [each["ratio"] for each in done.values() if "ratio" in each]
                result = {"ratio": min(ratios, default=None), "rows": done, "machine": machine()}
                options.output.parent.mkdir(exist_ok=True)
                write_json(options.output, result)
                print(table({f"{subject.name}/{name}": row})[-1], flush=True)
    order = {f"{s}/{name}": None for s in ("tinyflux", "flux1") for name in ROWS}
    print("\n".join(table({name: done[name] for name in order if name in done})))
    return int(any(row.get("ratio", 1) < 1 for row in done.values()))
