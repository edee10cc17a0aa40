"""Names that other programs use for keys of this project, and features that it does not have."""

from __future__ import annotations

from collections.abc import Collection

NAMES = {
    "steps": "epochs epoch num_epochs max_epochs n_epochs train_epochs num_train_epochs max_steps "
    "max_train_steps "
    "num_train_steps iterations iters num_iterations total_steps train_steps",
    "optimizer.lr": "learning_rate lr base_lr",
    "optimizer.weight_decay": "wd decay",
    "hardware.batch_size": "bs batch train_batch_size per_device_batch_size micro_batch_size "
    "batchsize",
    "hardware.accumulation": "grad_accum gradient_accumulation gradient_accumulation_steps "
    "accumulate_grad_batches",
    "hardware.devices": "gpus num_gpus n_gpus num_devices gpu_ids",
    "hardware.accelerator": "device cuda gpu",
    "hardware.workers": "num_workers dataloader_num_workers",
    "hardware.precision": "mixed_precision amp fp16 bf16",
    "hardware.gradient_checkpointing": "grad_checkpointing activation_checkpointing",
    "callbacks.clip": "grad_clip max_grad_norm gradient_clip_val clip_grad_norm",
    "callbacks.checkpoint.every_steps": "save_every save_steps checkpointing_steps "
    "checkpoint_every save_interval",
    "callbacks.validation.every_steps": "eval_every val_every validation_steps eval_steps "
    "val_check_interval",
    "callbacks.preview.every_steps": "sample_every preview_every",
    "callbacks.preview.prompts": "validation_prompt validation_prompts sample_prompts",
    "callbacks.ema.decay": "ema_decay",
    "data.root": "data_dir dataset_dir train_data_dir data_path dataset_path image_dir images "
    "folder",
    "data.image_size": "resolution size img_size image_resolution",
    "sampler.steps": "steps num_steps num_inference_steps inference_steps sampling_steps "
    "sample_steps",
    "sampler.solver": "scheduler sampler_name",
    "guidance.scale": "cfg cfg_scale guidance_scale scale",
    "n": "num_images num_images_per_prompt num_samples n_samples samples count",
    "negative_prompt": "neg_prompt negative uc",
    "prompt_file": "prompts prompts_file prompt_path",
    "checkpoint": "ckpt ckpt_path checkpoint_path weights_path model_path pretrained",
    "output": "out outdir out_dir output_dir output_path save_dir save_path",
    "logger.wandb.mode": "offline wandb_mode",
    "run": "run_name name exp_name experiment_name",
    "paths.outputs": "output_dir out_dir outdir logging_dir output",
    "resume": "resume_from resume_from_checkpoint continue ckpt_path checkpoint",
    "image": "init_image input_image",
    "control": "control_image controlnet_image",
    "reference": "reference_image ref_image",
    "width": "w",
    "height": "h",
}
ABSENT = {
    "train.py method=lora trains an adapter (method.rank), generate.py lora=FILE draws with one": (
        "lora lora_rank lora_alpha network_dim network_alpha lora_path lora_weights lora_scale "
        "loras"
    ),
    "text encoders are not trained: runs read their embeddings from a cache": (
        "train_text_encoder text_encoder_lora text_encoder_lr"
    ),
    "train.py method=controlnet trains a control branch (data.hint), generate.py control=MAP draws "
    "with one": "controlnet",
    "the last layers of an encoder are not skipped": "clip_skip",
    "pictures are not filtered": "safety_checker",
}
# words that mean something else in each group: `model.name` is not the name of the run
AMBIGUOUS = frozenset(
    ("name", "size", "scale", "steps", "count", "samples", "images", "folder", "output", "device")
)
COUNTED = "training is counted in steps of hardware.batch_size pictures: "


def advice(key: str, keys: Collection[str]) -> str:
    """Advice on an unknown key, given the existing `keys`; "" if there is none.

    For an ambiguous word in an existing group it names keys of that group alone.
    """
    word = key.rpartition(".")[2].lower().replace("-", "_")
    group = key.partition(".")[0] + "."
    if word in AMBIGUOUS and group != f"{key}." and any(name.startswith(group) for name in keys):
        keys = [name for name in keys if name.startswith(group)]
    for reason, synonyms in ABSENT.items():
        if word in synonyms.split():
            return f"{reason}; "
    for name, synonyms in NAMES.items():
        if word in synonyms.split() and name in keys and name != key:
            return f"{COUNTED if 'epoch' in word else ''}did you mean {name}? "
    return ""
