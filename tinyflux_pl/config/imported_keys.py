"""Settings of the training framework's YAML as keys of this project, and a report."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from tinyflux_pl.config.synonyms import advice
from tinyflux_pl.core.errors import ConfigError

# group -> the words of the old files -> the choice
CHOICES: dict[str, dict[str, str]] = {
    "model": {
        **dict.fromkeys(("flux", "flux1", "flux_dev", "flux-dev", "flux.1-dev"), "flux1_dev"),
        **dict.fromkeys(("flux_schnell", "flux-schnell", "flux.1-schnell"), "flux1_schnell"),
        **dict.fromkeys(("flux_kontext", "kontext", "flux-kontext"), "flux1_kontext"),
        **dict.fromkeys(("flux_fill", "flux-fill"), "flux1_fill"),
        **dict.fromkeys(("flux2", "flux.2", "flux2_dev", "flux2-dev"), "flux2_dev"),
        **dict.fromkeys(("sd3", "sd35", "sd3.5", "sd35_medium", "sd3_medium"), "sd35_medium"),
        **dict.fromkeys(("sd35_large", "sd3.5_large"), "sd35_large"),
        "sdxl": "sdxl",
    },
    "method": {
        "full_finetune": "full",
        "flux_full_finetune": "full",
        **{
            name: name for name in ("full", "lora", "dreambooth", "controlnet", "textual_inversion")
        },
    },
    "optimizer": {
        **dict.fromkeys(("adamw", "adam"), "adamw"),
        **{name: name for name in ("adamw8bit", "adafactor", "prodigy", "muon")},
    },
}
GROUPS = {
    "model.type": "model",
    "training.method": "method",
    "training.optimizer.type": "optimizer",
}
PRECISIONS = {
    "bf16": "bf16-mixed",
    "bfloat16": "bf16-mixed",
    "fp16": "16-mixed",
    "float16": "16-mixed",
    "no": "32-true",
    "fp32": "32-true",
    "False": "32-true",
}
RENAMED = {
    "experiment.name": "run",
    "experiment.output_dir": "paths.outputs",
    "experiment.seed": "seed",
    "model.pretrained_path": "model.weights",
    "model.pretrained_model_name_or_path": "model.weights",
    "model.revision": "model.revision",
    "model.dtype": "model.dtype",
    "training.optimizer.lr": "optimizer.lr",
    "training.learning_rate": "optimizer.lr",
    "training.optimizer.weight_decay": "optimizer.weight_decay",
    "training.max_steps": "steps",
    "training.max_train_steps": "steps",
    "training.warmup_steps": "schedule.warmup_steps",
    "training.lr_warmup_steps": "schedule.warmup_steps",
    "training.scheduler.warmup_steps": "schedule.warmup_steps",
    "training.max_grad_norm": "callbacks.clip",
    "training.ema.decay": "callbacks.ema.decay",
    "training.ema_decay": "callbacks.ema.decay",
    "training.save_steps": "callbacks.checkpoint.every_steps",
    "training.checkpointing_steps": "callbacks.checkpoint.every_steps",
    "training.validation_steps": "callbacks.preview.every_steps",
    "training.gradient_checkpointing": "hardware.gradient_checkpointing",
    "training.mixed_precision": "hardware.precision",
    "training.lora.rank": "method.rank",
    "training.lora.alpha": "method.alpha",
    "training.lora.dropout": "method.dropout",
    "training.lora.target_modules": "method.targets",
    "validation.prompts": "callbacks.preview.prompts",
    "validation.prompt": "callbacks.preview.prompts",
    "validation.steps": "callbacks.preview.every_steps",
    "data.train_path": "data.root",
    "data.resolution": "data.image_size",
    "data.target_resolution": "data.image_size",
    "data.bucket_resolution_steps": "data.buckets.step",
    "data.min_bucket_resolution": "data.buckets.min_side",
    "data.max_bucket_resolution": "data.buckets.max_side",
    "data.num_workers": "hardware.workers",
    "data.caption_dropout": "objective.text_dropout",
    "hardware.num_workers": "hardware.workers",
    "hardware.mixed_precision": "hardware.precision",
    "hardware.gradient_checkpointing": "hardware.gradient_checkpointing",
}
CONVERTED: dict[str, Callable[[Any], Any]] = {
    "hardware.precision": lambda value: PRECISIONS.get(str(value), value),
    "callbacks.preview.prompts": lambda value: value if isinstance(value, list) else [value],
}
BATCH = "training.batch_size"
ACCUMULATION = ("training.gradient_accumulation", "training.gradient_accumulation_steps")
DROPPED = {
    "data.cache_latents": "latents and text are always cached",
    "data.cache_text_embeddings": "latents and text are always cached",
    "training.epochs": "training is counted in steps of hardware.batch_size pictures: give steps",
    "training.lora.train_text_encoder": "text encoders are not trained",
}


@dataclass
class Imported:
    """`choices` of groups, `values` by dotted key, and the fate of every key of the file.

    `renamed` holds (old key, new key, value), `dropped` (old key, value, reason).
    """

    choices: dict[str, str] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    renamed: list[tuple[str, str, Any]] = field(default_factory=list)
    dropped: list[tuple[str, Any, str]] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The report: a line for each key."""
        return [
            *(f"renamed {old} -> {new}: {value}" for old, new, value in self.renamed),
            *(f"dropped {old}: {value} ({reason})" for old, value, reason in self.dropped),
        ]


def translated(settings: Mapping[str, Any], offered: Mapping[str, Collection[str]]) -> Imported:
    """The settings in this project's keys; `offered` are the choices of each group.

    Raises ConfigError for a model, method or optimizer that the project does not have.
    """
    result = Imported()
    leaves = dict(_leaves(settings))
    for old, group in GROUPS.items():
        if old in leaves:
            word = str(leaves.pop(old)).lower()
            choice = CHOICES[group].get(word, word)
            if choice not in offered[group]:
                cure = f"{group} has {', '.join(sorted(offered[group]))}"
                raise ConfigError(f"no {group} {word!r}", where=old, cure=cure)
            result.choices[group] = choice
            result.renamed.append((old, group, choice))
    _add_batch(leaves, result)
    for old, value in leaves.items():
        new = RENAMED.get(old)
        if new is None:
            reason = DROPPED.get(old) or advice(old, _related(old))
            result.dropped.append((old, value, reason.rstrip("; ") or "nothing here reads it"))
            continue
        converted = CONVERTED.get(new, lambda same: same)(value)
        for earlier in [entry for entry in result.renamed if entry[1] == new]:
            result.renamed.remove(earlier)
            result.dropped.append((earlier[0], earlier[2], f"{old} says {new} too, and wins"))
        result.values[new] = converted
        result.renamed.append((old, new, converted))
    if any(key.startswith("data.") for key in result.values):
        result.choices.setdefault("data", "folder")
    if "data.buckets.step" in result.values:
        result.values["data.buckets.enabled"] = True
    return result


def _related(old: str) -> list[str]:
    """Keys that an unknown key may stand for: of its section, by old or new name.

    A word means other things in other sections: the `name` of a model is not that of a run.
    """
    section = old.partition(".")[0]
    if "." not in old:
        return list(RENAMED.values())
    same = (
        new for key, new in RENAMED.items() if section in (key.split(".")[0], new.split(".")[0])
    )
    return list(same)


def _add_batch(leaves: dict[str, Any], result: Imported) -> None:
    """Set hardware.batch_size, which includes gradient accumulation."""
    name = next((name for name in ACCUMULATION if name in leaves), None)
    accumulation = leaves.pop(name) if name else None
    if BATCH in leaves:
        batch, of = leaves.pop(BATCH), ""
        if isinstance(batch, int) and isinstance(accumulation, int):
            batch, of = batch * accumulation, f" ({batch} x {accumulation} accumulated)"
        result.values["hardware.batch_size"] = batch
        result.renamed.append((BATCH, "hardware.batch_size", f"{batch}{of}"))
    if name:
        result.values["hardware.accumulation"] = accumulation
        result.renamed.append((name, "hardware.accumulation", accumulation))


def _leaves(node: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    leaves = []
    for key, value in node.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        leaves += _leaves(value, name) if isinstance(value, Mapping) else [(name, value)]
    return leaves
