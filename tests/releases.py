"""Tiny random checkpoints in the layout of the real releases, with tokenizers made on the spot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

WORDS = ["a", "red", "blue", "circle", "square", "left", "of", "the"]
CLIP_WIDTH, T5_WIDTH, LUNE_WIDTH = 12, 16, 24


def tokenizer(begin: list[str] | None, end: str, pad: str) -> tuple[Any, dict[str, int]]:
    """A fast tokenizer over WORDS, and its vocabulary."""
    from transformers import PreTrainedTokenizerFast

    special = list(dict.fromkeys([pad, *(begin or []), end, "<unk>"]))
    vocabulary = {word: i for i, word in enumerate([*special, *WORDS])}
    built = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    built.pre_tokenizer = pre_tokenizers.Whitespace()
    template = " ".join([*(begin or []), "$A", end])
    used = [(token, vocabulary[token]) for token in [*(begin or []), end]]
    built.post_processor = processors.TemplateProcessing(single=template, special_tokens=used)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=built, eos_token=end, pad_token=pad, unk_token="<unk>"
    )
    return fast, vocabulary


def flan_t5(folder: Path, seed: int = 0, width: int = T5_WIDTH) -> Path:
    """Like google/flan-t5-base: encoder-decoder and tokenizer in one folder."""
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(seed)
    fast, vocabulary = tokenizer(None, "</s>", "<pad>")
    T5ForConditionalGeneration(T5Config(**t5_text(vocabulary, width))).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def t5_text(vocabulary: dict[str, int], width: int = T5_WIDTH) -> dict[str, Any]:
    """The configuration of a tiny T5."""
    return dict(
        vocab_size=len(vocabulary),
        d_model=width,
        d_kv=8,
        d_ff=32,
        num_layers=2,
        num_heads=2,
        pad_token_id=vocabulary["<pad>"],
        eos_token_id=vocabulary["</s>"],
        decoder_start_token_id=0,
    )


def clip_text(vocabulary: dict[str, int]) -> dict[str, Any]:
    """The configuration of a tiny CLIP's text tower."""
    return dict(
        vocab_size=len(vocabulary),
        hidden_size=CLIP_WIDTH,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=77,
        eos_token_id=vocabulary["<e>"],
        bos_token_id=vocabulary["<s>"],
        pad_token_id=vocabulary["<e>"],
    )


def clip(folder: Path, seed: int = 1) -> Path:
    """Like openai/clip-vit-large-patch14: both towers in one folder."""
    from transformers import CLIPConfig, CLIPModel, CLIPVisionConfig

    torch.manual_seed(seed)
    fast, vocabulary = tokenizer(["<s>"], "<e>", "<e>")
    vision = CLIPVisionConfig(
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        image_size=8,
        patch_size=4,
    )
    CLIPModel(
        CLIPConfig(text_config=clip_text(vocabulary), vision_config=vision.to_dict())
    ).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def sd15_text(folder: Path, seed: int = 2) -> Path:
    """The text_encoder/ and tokenizer/ of Stable Diffusion 1.5."""
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(seed)
    fast, vocabulary = tokenizer(["<s>"], "<e>", "<e>")
    CLIPTextModel(CLIPTextConfig(**clip_text(vocabulary))).save_pretrained(folder / "text_encoder")
    fast.save_pretrained(folder / "tokenizer")
    return folder


def vae(folder: Path, seed: int = 3, **config: Any) -> Any:
    """Write vae/ of a diffusers release and return the autoencoder, by default with four levels."""
    from diffusers import AutoencoderKL

    torch.manual_seed(seed)
    channels = config.setdefault("block_out_channels", (8, 8, 8, 8))
    model = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        norm_num_groups=4,
        **config,
    )
    model.save_pretrained(folder / "vae")
    return model.eval()


def flux1_vae(folder: Path, seed: int = 3) -> Any:
    """FLUX.1's: 16 channels, its scale and shift, no convolutions around the latents."""
    flux = dict(
        use_quant_conv=False, use_post_quant_conv=False, scaling_factor=0.3611, shift_factor=0.1159
    )
    return vae(folder, seed, latent_channels=16, **flux)


def sd15(folder: Path) -> Path:
    """Stable Diffusion 1.5: unet/, vae/, text_encoder/, tokenizer/."""
    unet(4).save_pretrained(folder / "unet")
    vae(folder, 4, latent_channels=4)
    return sd15_text(folder)


def unet(seed: int, **config: Any) -> Any:
    """A UNet in Stable Diffusion 1.5's blocks: three levels with attention, one without."""
    from diffusers import UNet2DConditionModel

    torch.manual_seed(seed)
    return UNet2DConditionModel(
        in_channels=4,
        out_channels=4,
        sample_size=8,
        down_block_types=(*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
        up_block_types=("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
        block_out_channels=(8, 16, LUNE_WIDTH, LUNE_WIDTH),
        layers_per_block=1,
        attention_head_dim=2,
        norm_num_groups=4,
        cross_attention_dim=CLIP_WIDTH,
        **config,
    )


def flow_weights(folder: Path) -> Path:
    """The two flow teachers as they were published: bare UNet weights in half precision."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(("lune", "sol"), 5):
        weights = {key: value.half().contiguous() for key, value in unet(seed).state_dict().items()}
        save_file(weights, folder / f"sd15-flow-{name}-unet.safetensors")
    return folder


def all_of(root: Path) -> list[str]:
    """Write everything that codec=flux1, text=flan_t5_clip and teacher=sd15_flow read.

    Returns the overrides that point there.
    """
    flux1_vae(root / "flux1")
    return [
        "codec=flux1",
        f"codec.weights='{root / 'flux1'}'",
        "text=flan_t5_clip",
        f"text.t5='{flan_t5(root / 't5')}'",
        f"text.clip='{clip(root / 'clip')}'",
        "text.length=16",
        "teacher=sd15_flow",
        f"teacher.width={LUNE_WIDTH}",
        f"teacher.unet='{sd15(root / 'sd15')}'",
        f"teacher.weights='{flow_weights(root / 'experts')}'",
    ]
