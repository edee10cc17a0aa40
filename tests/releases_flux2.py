"""Tiny random checkpoints in the layout of FLUX.2's and FLUX.3's releases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from tests.releases import WORDS

ROLES = ["<bos>", "<pad>", "<unk>", "[sys]", "[user]", "[end]", "[assistant]", "[think]", "[IMG]"]
TEMPLATE = (
    "{bos}{{% for message in messages %}}{{{{ '[sys] ' if message.role == 'system' else '[user] ' "
    "}}}}"
    "{{% if message.content is string %}}{{{{ message.content }}}}"
    "{{% else %}}{{% for part in message.content %}}{{{{ part.text }}}}{{% endfor %}}{{% endif %}} "
    "[end] {{% endfor %}}"
    "{{% if add_generation_prompt %}}[assistant] {{% if enable_thinking is defined and not "
    "enable_thinking %}}"
    "[think] {{% endif %}}{{% endif %}}"
)


def chat_tokenizer(folder: Path, bos: bool = False) -> Any:
    """Save a fast tokenizer over a few words with a chat template; Mistral's adds BOS."""
    from transformers import PreTrainedTokenizerFast

    words = [
        *ROLES,
        *WORDS,
        "You",
        "are",
        "an",
        "AI",
        "that",
        "reasons",
        "about",
        "image",
        "descriptions",
        ".",
    ]
    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        **({"bos_token": "<bos>"} if bos else {}),
        additional_special_tokens=ROLES[3:],
    )
    fast.chat_template = TEMPLATE.format(bos="<bos> " if bos else "")
    fast.save_pretrained(folder)
    return fast


def language_model(kind: str, hidden: int, layers: int) -> dict[str, Any]:
    """A configuration of a tiny decoder, as plain data."""
    return dict(
        vocab_size=40,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=hidden // 2,
        max_position_embeddings=1024,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=5,
    )


def qwen3(folder: Path, seed: int = 0, hidden: int = 8, layers: int = 4) -> Any:
    """text_encoder/ and tokenizer/ of a FLUX.2 klein."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(Qwen3Config(**language_model("qwen3", hidden, layers)))
    model.save_pretrained(folder / "text_encoder")
    chat_tokenizer(folder / "tokenizer")
    return model.eval()


def mistral3(folder: Path, seed: int = 1, hidden: int = 8, layers: int = 4) -> Any:
    """Write text_encoder/ and tokenizer/ of FLUX.2 dev: Mistral with an unused image tower."""
    from transformers import (
        Mistral3Config,
        Mistral3ForConditionalGeneration,
        MistralConfig,
        PixtralVisionConfig,
    )

    torch.manual_seed(seed)
    vision = PixtralVisionConfig(
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        head_dim=8,
        image_size=8,
        patch_size=4,
    )
    text = MistralConfig(**language_model("mistral", hidden, layers))
    model = Mistral3ForConditionalGeneration(
        Mistral3Config(
            text_config=text.to_dict(), vision_config=vision.to_dict(), image_token_index=8
        )
    )
    model.save_pretrained(folder / "text_encoder")
    chat_tokenizer(folder / "tokenizer", bos=True)
    return model.eval()


def qwen3_vl(folder: Path, seed: int = 2, hidden: int = 8, layers: int = 4) -> Any:
    """text_encoder/ and tokenizer/ of FLUX.3: Qwen3-VL, its image tower unused."""
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    torch.manual_seed(seed)
    text = language_model("qwen3_vl_text", hidden, layers)
    text["rope_parameters"] = {
        "rope_type": "default",
        "mrope_section": [1, 1, 0],
        "rope_theta": 1e4,
    }
    vision = dict(
        depth=1,
        hidden_size=8,
        intermediate_size=8,
        num_heads=1,
        out_hidden_size=hidden,
        patch_size=4,
        num_position_embeddings=16,
        deepstack_visual_indexes=[],
    )
    model = Qwen3VLForConditionalGeneration(Qwen3VLConfig(text_config=text, vision_config=vision))
    model.save_pretrained(folder / "text_encoder")
    chat_tokenizer(folder / "tokenizer")
    return model.eval()


def flux2_vae(folder: Path, seed: int = 3) -> Any:
    """vae/ of FLUX.2, three halvings, with statistics that are not those of a fresh norm."""
    from diffusers import AutoencoderKLFlux2

    torch.manual_seed(seed)
    model = AutoencoderKLFlux2(
        block_out_channels=(8, 8, 8, 8), latent_channels=4, norm_num_groups=4, layers_per_block=1
    )
    model.bn.running_mean.normal_()
    model.bn.running_var.uniform_(0.5, 2.0)
    model.save_pretrained(folder / "vae")
    return model.eval()


def scheduler(**config: Any) -> Any:
    """The Euler scheduler as the releases configure it."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(**config)


def flux2(folder: Path, guided: bool, seed: int = 4) -> Any:
    """Write a pipeline with diffusers: dev (guided, Mistral, guidance input) or klein (Qwen3)."""
    from diffusers import Flux2KleinPipeline, Flux2Pipeline, Flux2Transformer2DModel
    from transformers import AutoTokenizer

    encoder = mistral3(folder) if guided else qwen3(folder)
    vae = flux2_vae(folder)
    torch.manual_seed(seed)
    net = Flux2Transformer2DModel(
        in_channels=16,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=24,
        axes_dims_rope=(4, 4, 4, 4),
        timestep_guidance_channels=16,
        guidance_embeds=guided,
    ).eval()
    pipeline = (Flux2Pipeline if guided else Flux2KleinPipeline)(
        scheduler=scheduler(use_dynamic_shifting=True, time_shift_type="exponential"),
        vae=vae,
        text_encoder=encoder,
        tokenizer=AutoTokenizer.from_pretrained(folder / "tokenizer"),
        transformer=net,
    )
    pipeline.save_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def flux3(folder: Path, seed: int = 5, flow_map: bool = False) -> Any:
    """Write transformer/, vae/, text_encoder/ and tokenizer/ of FLUX.3 and return the networks."""
    from diffusers import Flux3Transformer2DModel

    encoder, vae = qwen3_vl(folder), flux2_vae(folder)
    torch.manual_seed(seed)
    net = Flux3Transformer2DModel(
        in_channels=16,
        cond_in_channels=16,
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=24,
        axes_dims_rope=(4, 4, 4, 4),
        timestep_channels=16,
        flow_map=flow_map,
    ).eval()
    net.save_pretrained(folder / "transformer")
    return net, vae, encoder
