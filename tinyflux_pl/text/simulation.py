"""Small random encoders of transformers and a byte tokenizer, made in memory without files."""

from __future__ import annotations

from typing import Any

from tinyflux_pl.core.random_weights import drawn_from
from tinyflux_pl.text.encoder_config import skeleton

PAD, UNKNOWN, BEGIN, END = "<pad>", "<unk>", "<s>", "</s>"
SPECIAL = (PAD, UNKNOWN, BEGIN, END)
CHAT = (
    "{% for m in messages %}{{ m.role }}: {% if m.content is string %}{{ m.content }}"
    "{% else %}{% for part in m.content %}{{ part.text }}{% endfor %}{% endif %}\n{% endfor %}"
)
VOCABULARY = len(SPECIAL) + 256
IDS = {
    "vocab_size": VOCABULARY,
    "pad_token_id": SPECIAL.index(PAD),
    "bos_token_id": SPECIAL.index(BEGIN),
    "eos_token_id": SPECIAL.index(END),
}
# what a structure keeps (activations, norms, gates) decides the computation; this is its size
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 2}
CLIP = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "projection_dim": 16,
}
DECODER = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
}
ROTATED = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e6}


def small_t5(structure: dict[str, Any]) -> dict[str, Any]:
    """T5's structure, two blocks of 32 channels."""
    return {**structure, **T5, **IDS}


def small_clip(structure: dict[str, Any]) -> dict[str, Any]:
    """CLIP's structure, two blocks of 16 channels."""
    return {**structure, **CLIP, **IDS}


def small_decoder(structure: dict[str, Any], layers: int) -> dict[str, Any]:
    """A chat model's structure with so many blocks of 16 channels.

    Its picture tower is not built.
    """
    small = {**DECODER, **IDS, "num_hidden_layers": layers}
    if "text_config" not in structure:
        return {**structure, **small}
    text = {**structure["text_config"], **small}
    if "deepstack_visual_indexes" in structure.get("vision_config", {}):  # rotated by three axes
        text["rope_parameters"] = ROTATED
    return {**structure, "text_config": text}


def tokenizer() -> Any:
    """A tokenizer whose tokens are the bytes of a text, with a chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate((*SPECIAL, *letters))}
    fast = Tokenizer(models.BPE(vocabulary, merges=[], unk_token=UNKNOWN))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    fast.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", special_tokens=[(END, vocabulary[END])]
    )
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=fast, pad_token=PAD, unk_token=UNKNOWN, eos_token=END
    )
    wrapped.chat_template = CHAT
    return wrapped


def encoder(kind: str, structure: dict[str, Any], dtype: Any, seed: int, key: str) -> Any:
    """A frozen random encoder of that structure."""
    import torch

    empty = skeleton(kind, structure)
    with drawn_from(seed, f"simulated/{key}"), torch.device("cpu"):
        network = type(empty)(empty.config)
    return network.to(dtype).eval().requires_grad_(False)
