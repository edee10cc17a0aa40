"""Weights under the keys of the original releases, converted from diffusers and transformers."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

VAE = (
    (r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2"),
    (r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample"),
    (r"up_blocks\.(\d)\.resnets\.(\d)", r"up.\1.block.\2"),
    (r"up_blocks\.(\d)\.upsamplers\.0", r"up.\1.upsample"),
    (r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}"),
    (r"mid_block\.attentions\.0\.group_norm", "mid.attn_1.norm"),
    (r"mid_block\.attentions\.0\.to_([qkv])", r"mid.attn_1.\1"),
    (r"mid_block\.attentions\.0\.to_out\.0", "mid.attn_1.proj_out"),
    ("conv_shortcut", "nin_shortcut"),
    ("conv_norm_out", "norm_out"),
)


def vae_original(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Keys of ae.safetensors: attention of 1 x 1 convolutions, decoder levels counted upwards."""
    levels = len({key.split(".")[2] for key in tensors if key.startswith("decoder.up_blocks.")})
    original = {}
    for key, value in tensors.items():
        if "bn.running_mean" in tensors:  # FLUX.2's
            key = re.sub(
                "^post_quant", "decoder.post_quant", re.sub("^quant", "encoder.quant", key)
            )
        key = re.sub(r"up_blocks\.(\d)", lambda m: f"up_blocks.{levels - 1 - int(m[1])}", key)
        for pattern, new in VAE:
            key = re.sub(pattern, new, key)
        original[key] = (
            value[..., None, None] if re.search(r"attn_1\.(q|k|v|proj_out)\.weight", key) else value
        )
    return {key: value.contiguous() for key, value in original.items()}


RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}


def ldm_key(key: str) -> str:
    """A key of diffusers' UNet (three levels, two layers each) in Stability's layout."""
    stem, _, leaf = key.rpartition(".")
    if stem in ENDS:
        return f"{ENDS[stem]}.{leaf}"
    side, level, kind, layer, rest = re.fullmatch(
        r"(down|mid|up)_block(?:s\.(\d))?\.(resnets|attentions|downsamplers|upsamplers)\.(\d)\.(.+)",
        stem,
    ).groups()
    rest = RESNET.get(rest, rest) if kind == "resnets" else rest
    number = int(layer)
    if side == "mid":
        return f"middle_block.{1 if kind == 'attentions' else 2 * number}.{rest}.{leaf}"
    if kind == "downsamplers":
        return f"input_blocks.{3 * (int(level) + 1)}.0.op.{leaf}"
    if kind == "upsamplers":
        return f"output_blocks.{3 * int(level) + 2}.{1 if level == '2' else 2}.conv.{leaf}"
    position = int(kind == "attentions")
    block = (
        f"input_blocks.{1 + 3 * int(level) + number}"
        if side == "down"
        else f"output_blocks.{3 * int(level) + number}"
    )
    return f"{block}.{position}.{rest}.{leaf}"


def sd3_original(net) -> dict[str, torch.Tensor]:
    """The transformer's weights under Stability's keys."""
    tensors, original, last = net.state_dict(), {}, net.config["num_layers"] - 1

    def take(new: str, *old: str) -> None:
        for leaf in ("weight", "bias"):
            if f"{old[0]}.{leaf}" in tensors:
                original[f"{new}.{leaf}"] = torch.cat(
                    [tensors.pop(f"{key}.{leaf}") for key in old]
                ).clone()

    def halves(new: str, old: str) -> None:
        take(new, old)
        for leaf in ("weight", "bias"):
            original[f"{new}.{leaf}"] = torch.cat(original[f"{new}.{leaf}"].chunk(2)[::-1])

    original["pos_embed"] = tensors.pop("pos_embed.pos_embed").clone()
    take("x_embedder.proj", "pos_embed.proj")
    take("context_embedder", "context_embedder")
    for old, new in (("timestep", "t"), ("text", "y")):
        take(f"{new}_embedder.mlp.0", f"time_text_embed.{old}_embedder.linear_1")
        take(f"{new}_embedder.mlp.2", f"time_text_embed.{old}_embedder.linear_2")
    take("final_layer.linear", "proj_out")
    halves("final_layer.adaLN_modulation.1", "norm_out.linear")
    for i in range(last + 1):
        old, new = f"transformer_blocks.{i}", f"joint_blocks.{i}"
        for attn in ("attn", "attn2"):
            take(f"{new}.x_block.{attn}.qkv", *(f"{old}.{attn}.to_{c}" for c in "qkv"))
            take(f"{new}.x_block.{attn}.proj", f"{old}.{attn}.to_out.0")
            take(f"{new}.x_block.{attn}.ln_q", f"{old}.{attn}.norm_q")
            take(f"{new}.x_block.{attn}.ln_k", f"{old}.{attn}.norm_k")
        take(f"{new}.context_block.attn.qkv", *(f"{old}.attn.add_{c}_proj" for c in "qkv"))
        take(f"{new}.context_block.attn.proj", f"{old}.attn.to_add_out")
        take(f"{new}.context_block.attn.ln_q", f"{old}.attn.norm_added_q")
        take(f"{new}.context_block.attn.ln_k", f"{old}.attn.norm_added_k")
        take(f"{new}.x_block.adaLN_modulation.1", f"{old}.norm1.linear")
        (halves if i == last else take)(
            f"{new}.context_block.adaLN_modulation.1", f"{old}.norm1_context.linear"
        )
        for stream, word in (("x_block", "ff"), ("context_block", "ff_context")):
            take(f"{new}.{stream}.mlp.fc1", f"{old}.{word}.net.0.proj")
            take(f"{new}.{stream}.mlp.fc2", f"{old}.{word}.net.2")
    assert not tensors, sorted(tensors)
    return original


def unet_original(net: Any) -> dict[str, Tensor]:
    """The UNet's weights under Stability's keys."""
    return {ldm_key(key): value for key, value in net.state_dict().items()}


OPEN_CLIP = {
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
}


def open_clip_original(encoder: Any) -> dict[str, Tensor]:
    """A projected CLIP under OpenCLIP's keys: fused qkv, transposed projection."""
    tensors = dict(encoder.state_dict())
    original = {new: tensors.pop(old) for old, new in OPEN_CLIP.items()}
    original["text_projection"] = tensors.pop("text_projection.weight").T.contiguous()
    original["logit_scale"] = torch.tensor(4.6)
    layer = "text_model.encoder.layers"
    for i in range(encoder.config.num_hidden_layers):
        new = f"transformer.resblocks.{i}"
        for leaf in ("weight", "bias"):
            parts = [tensors.pop(f"{layer}.{i}.self_attn.{part}_proj.{leaf}") for part in "qkv"]
            original[f"{new}.attn.in_proj_{leaf}"] = torch.cat(parts)
            original[f"{new}.attn.out_proj.{leaf}"] = tensors.pop(
                f"{layer}.{i}.self_attn.out_proj.{leaf}"
            )
            original[f"{new}.ln_1.{leaf}"] = tensors.pop(f"{layer}.{i}.layer_norm1.{leaf}")
            original[f"{new}.ln_2.{leaf}"] = tensors.pop(f"{layer}.{i}.layer_norm2.{leaf}")
            original[f"{new}.mlp.c_fc.{leaf}"] = tensors.pop(f"{layer}.{i}.mlp.fc1.{leaf}")
            original[f"{new}.mlp.c_proj.{leaf}"] = tensors.pop(f"{layer}.{i}.mlp.fc2.{leaf}")
    assert not tensors, sorted(tensors)
    return original


def clip_published(encoder: Any) -> dict[str, Tensor]:
    """A CLIP under published keys, which today's transformers shorten without projection."""
    tensors = encoder.state_dict()
    named = {
        key if key.startswith("text_") else f"text_model.{key}": value
        for key, value in tensors.items()
    }
    return {**named, "text_model.embeddings.position_ids": torch.arange(77)[None]}


def under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with a key prefix, each with its own memory, as safetensors requires."""
    return {prefix + key: value.detach().clone().contiguous() for key, value in tensors.items()}


def sdxl_file(pipeline: Any) -> dict[str, Tensor]:
    """sd_xl_base_1.0.safetensors: everything but the tokenizers."""
    return {
        **under("model.diffusion_model.", unet_original(pipeline.unet)),
        **under("first_stage_model.", vae_original(pipeline.vae.state_dict())),
        **under("conditioner.embedders.0.transformer.", clip_published(pipeline.text_encoder)),
        **under("conditioner.embedders.1.model.", open_clip_original(pipeline.text_encoder_2)),
        "denoiser.sigmas": torch.ones(4),
    }


def sd35_file(pipeline: Any, t5: bool = True) -> dict[str, Tensor]:
    """SD3.5 as packed by image tools with all encoders; the first has no projection."""
    first = {
        k: v
        for k, v in clip_published(pipeline.text_encoder).items()
        if k != "text_projection.weight"
    }
    return {
        **under("model.diffusion_model.", sd3_original(pipeline.transformer)),
        **under("first_stage_model.", vae_original(pipeline.vae.state_dict())),
        **under("text_encoders.clip_l.transformer.", first),
        **under("text_encoders.clip_g.transformer.", clip_published(pipeline.text_encoder_2)),
        **(
            under("text_encoders.t5xxl.transformer.", pipeline.text_encoder_3.state_dict())
            if t5
            else {}
        ),
        "text_encoders.clip_l.logit_scale": torch.tensor(4.6),
    }
