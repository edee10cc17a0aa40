"""Every logged name with its unit and meaning; docs/dashboards.md lists them from here.

The names are the same in the CSV file, TensorBoard and W&B. A part in braces stands for what the
run has: `train/{term}` is train/flow, and train/lune in a run with that expert.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

RESULTS = "results"  # prefix of what results.json says
LOG_POINT = "log point"  # callbacks.log_every_steps
VALIDATION_STEP = "validation"
PREVIEW_STEP = "preview"
END = "end of the run"


@dataclass(frozen=True)
class MetricName:
    """A name, or a pattern with parts in braces that `of` fills in.

    `measured`: by the clock or the memory of a machine, so that equal runs differ in it.
    """

    pattern: str
    unit: str
    meaning: str
    when: str
    measured: bool = False

    def of(self, **parts: object) -> str:
        """The name with its parts filled in."""
        return self.pattern.format(**parts)

    def parts(self, name: str) -> dict[str, str] | None:
        """The parts in braces that make this pattern `name`; None if it is no such name."""
        literals = re.split(r"\{(\w+)\}", self.pattern)
        groups = (
            f"(?P<{part}>[^/]+)" if index % 2 else re.escape(part)
            for index, part in enumerate(literals)
        )
        match = re.fullmatch("".join(groups), name)
        return None if match is None else match.groupdict()

    def matches(self, name: str) -> bool:
        """True if `name` is this name, or one of this pattern."""
        return self.parts(name) is not None


LOSS = MetricName("train/loss", "1", "sum of the weighted loss terms", LOG_POINT)
UNWEIGHTED = MetricName(
    "train/{expert}_unweighted", "1", "distillation loss of an expert before its weight", LOG_POINT
)
WEIGHT = MetricName(
    "train/{expert}_weight", "1", "weight of an expert's loss, which ramps up", LOG_POINT
)
DROPOUT = MetricName(
    "train/{expert}_dropout", "probability", "of a sample to go without the teacher", LOG_POINT
)
VELOCITY_SHARE = MetricName(
    "train/velocity_share", "share", "samples whose target has a teacher's velocity", LOG_POINT
)
VELOCITY_WEIGHT = MetricName(
    "train/velocity_weight",
    "1",
    "w of a teacher's velocity in its target, which ramps up",
    LOG_POINT,
)
VELOCITY_OPEN = MetricName(
    "train/velocity_open_t_{time}",
    "0 or 1",
    "1 while the best teacher at a cached time is used: its error is below the student's",
    LOG_POINT,
)
GATE = MetricName(
    "train/gate_{port}",
    "share",
    "learned gate of an expert's port (vec: Lune's features; prior: the fixed prior against Sol's)",
    LOG_POINT,
)
GRADIENT_NORM = MetricName(
    "train/gradient_norm", "1", "L2 norm of the gradient before clipping", LOG_POINT
)
MODULE_GRADIENT_NORM = MetricName(
    "train/gradient_norm_{module}",
    "1",
    "the same for one module of the network, of the last step alone",
    LOG_POINT,
)
LEARNING_RATE = MetricName(
    "train/learning_rate_{group}",
    "1",
    "learning rate of a parameter group, after its optimizer's name where there are several",
    LOG_POINT,
)
EMA_DISTANCE = MetricName(
    "train/ema_distance",
    "1",
    "L2 distance of the averaged weights from the raw ones, over the norm of the raw ones",
    LOG_POINT,
)
SKIPPED = MetricName(
    "train/skipped_steps", "steps", "steps that the guard has rejected so far", LOG_POINT
)
IMAGES_PER_SECOND = MetricName(
    "train/images_per_second",
    "images/s",
    "over all ranks, without validation, previews and checkpoints",
    LOG_POINT,
    measured=True,
)
DATA_WAIT = MetricName(
    "train/data_wait_seconds",
    "s",
    "time of a step in which the host waits for its batches",
    LOG_POINT,
    measured=True,
)
MFU = MetricName(
    "train/mfu",
    "share",
    "model FLOPs utilisation: FLOPs of forward and backward pass over the peak of the GPUs; only "
    "where that peak is known",
    LOG_POINT,
    measured=True,
)
MEMORY = MetricName(
    "train/peak_memory_bytes",
    "bytes",
    "largest memory so far: allocated on the GPU, resident on a CPU",
    LOG_POINT,
    measured=True,
)
TERM = MetricName(
    "train/{term}", "1", "a weighted term of the loss: flow, lune, sol ...", LOG_POINT
)
VALIDATION_LOSS = MetricName(
    "validation/loss",
    "1",
    "mean squared error of the averaged weights on validation samples, mean over times",
    VALIDATION_STEP,
)
VALIDATION_AT = MetricName(
    "validation/loss_t_{time}", "1", "the same at one time, 0 noise to 1 data", VALIDATION_STEP
)
SEEN_LOSS = MetricName(
    "validation/seen_loss", "1", "the same on as many training samples", VALIDATION_STEP
)
SEEN_AT = MetricName("validation/seen_loss_t_{time}", "1", "the same at one time", VALIDATION_STEP)
L1 = MetricName(
    "validation/l1", "1", "mean absolute error of an autoencoder's pictures", VALIDATION_STEP
)
PSNR = MetricName(
    "validation/psnr", "dB", "PSNR of an autoencoder's pictures, mean of each", VALIDATION_STEP
)
SEEN_L1 = MetricName(
    "validation/seen_l1", "1", "mean absolute error on as many training samples", VALIDATION_STEP
)
SEEN_PSNR = MetricName(
    "validation/seen_psnr", "dB", "PSNR on as many training samples", VALIDATION_STEP
)
ACCURACY = MetricName(
    "preview/accuracy_{claim}",
    "share",
    "previews that match the prompt in one attribute; all: in every attribute",
    PREVIEW_STEP,
)
READABLE = MetricName(
    "preview/readable", "share", "previews that the verifier can read", PREVIEW_STEP
)
FIT = MetricName(
    "preview/fit",
    "share",
    "mean part of a preview's contrast that the best drawn shape explains",
    PREVIEW_STEP,
)
GRID = MetricName("preview/grid", "image", "the previews on one sheet, captioned", PREVIEW_STEP)
SAMPLES = MetricName(
    "preview/samples", "table", "step, seed, caption and picture of each preview", PREVIEW_STEP
)
PREFLIGHT = MetricName(
    "preflight/{table}", "table", "data, memory and budget, as the preflight prints them", "start"
)
RESULT = MetricName(f"{RESULTS}/{{key}}", "as in results.json", "a closing result of the run", END)
RESULT_ACCURACY = MetricName(
    f"{RESULTS}/accuracies/{{source}}/{{split}}/{{claim}}",
    "share",
    "prompt accuracy of the final evaluation, by data source, prompt split and attribute",
    END,
)
RESULT_READING = MetricName(
    f"{RESULTS}/readings/{{source}}/{{split}}/{{key}}",
    "share",
    "readable share and mean fit of the same pictures",
    END,
)
RESULT_NOVELTY = MetricName(
    f"{RESULTS}/novelty/{{source}}/{{split}}/{{kind}}/{{quantile}}",
    "distance",
    "quantile of the distances to the nearest training picture",
    END,
)
STATE = MetricName("run/state", "text", "finished, failed, interrupted or pruned", END)
EXIT_CODE = MetricName("run/exit_code", "1", "0, or that of the error", END)
ERROR = MetricName("run/error", "text", "the error in one line, redacted", END)

# Fixed names before the patterns that would take them too.
SCALARS = (
    *(VELOCITY_SHARE, VELOCITY_WEIGHT, VELOCITY_OPEN),
    *(LOSS, UNWEIGHTED, WEIGHT, DROPOUT, GATE, GRADIENT_NORM, MODULE_GRADIENT_NORM, LEARNING_RATE),
    *(EMA_DISTANCE, SKIPPED, IMAGES_PER_SECOND, DATA_WAIT, MFU, MEMORY, TERM),
    *(VALIDATION_LOSS, VALIDATION_AT, SEEN_LOSS, SEEN_AT),
    *(L1, PSNR, SEEN_L1, SEEN_PSNR, ACCURACY, READABLE, FIT),
)
MEDIA = (GRID, SAMPLES, PREFLIGHT)
SUMMARY = (RESULT, RESULT_ACCURACY, RESULT_READING, RESULT_NOVELTY, STATE, EXIT_CODE, ERROR)
CATALOGUE = (*SCALARS, *MEDIA, *SUMMARY)


def find(name: str) -> MetricName | None:
    """The entry of the catalogue that a name belongs to."""
    return next((entry for entry in CATALOGUE if entry.matches(name)), None)


def on_seen(name: str) -> str:
    """The name of a validation error measured on training samples."""
    return name.replace("validation/", "validation/seen_", 1)


def is_measured(name: str) -> bool:
    """True for a name whose values depend on the machine."""
    entry = find(name)
    return entry is not None and entry.measured


def table() -> Iterator[str]:
    """The lines of a Markdown table of the catalogue."""
    yield "| name | unit | meaning | logged at |"
    yield "|---|---|---|---|"
    for entry in CATALOGUE:
        yield f"| `{entry.pattern}` | {entry.unit} | {entry.meaning} | {entry.when} |"
