"""The attention of a diffusers UNet, with the product taken in fp32 on a CPU."""

from contextlib import nullcontext
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tinyflux_pl.core.errors import ConfigError

HiddenStates = Float[Tensor, "b n d"]
EncoderStates = Float[Tensor, "b m c"]


def project(
    attn: Any, hidden_states: HiddenStates, encoder_hidden_states: EncoderStates | None
) -> tuple[
    Float[Tensor, "b heads n e"], Float[Tensor, "b heads m e"], Float[Tensor, "b heads m e"]
]:
    """Query, key and value, heads apart, of one diffusers `Attention`."""
    source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
    batch = hidden_states.shape[0]
    query, key, value = attn.to_q(hidden_states), attn.to_k(source), attn.to_v(source)

    def split(part: Tensor) -> Tensor:
        return part.view(batch, -1, attn.heads, part.shape[-1] // attn.heads).transpose(1, 2)

    return split(query), split(key), split(value)


def merge(attn: Any, attended: Float[Tensor, "b heads n e"]) -> HiddenStates:
    """Heads back together, through the output projection."""
    return attn.to_out[1](attn.to_out[0](attended.transpose(1, 2).flatten(2)))


class UNetAttention:
    """A diffusers attention processor equal to its AttnProcessor2_0 on what UNet blocks use.

    In bf16 the CPU kernel of scaled_dot_product_attention runs about three times slower than in
    fp32 (measured, forward and backward), so there, and only there, the product leaves autocast.
    """

    def __call__(
        self,
        attn: Any,
        hidden_states: HiddenStates,
        encoder_hidden_states: EncoderStates | None = None,
        attention_mask: Tensor | None = None,
        **_: Any,
    ) -> HiddenStates:
        query, key, value = project(attn, hidden_states, encoder_hidden_states)
        self.observe(attn, query, key)
        if attention_mask is not None:
            rows = hidden_states.shape[0]
            attention_mask = attn.prepare_attention_mask(attention_mask, key.shape[2], rows)
            attention_mask = attention_mask.view(rows, attn.heads, -1, attention_mask.shape[-1])
        on_cpu = hidden_states.device.type == "cpu"
        with torch.autocast("cpu", enabled=False) if on_cpu else nullcontext():
            if on_cpu:
                query, key, value = query.float(), key.float(), value.float()
            if attention_mask is not None:
                attention_mask = attention_mask.to(query.dtype)
            attended = torch.nn.functional.scaled_dot_product_attention(
                query, key, value, attention_mask
            )
        return merge(attn, attended.to(hidden_states.dtype))

    def observe(
        self, attn: Any, query: Float[Tensor, "b heads n e"], key: Float[Tensor, "b heads m e"]
    ) -> None:
        """Called with every query and key before attention; a no-op unless overridden."""


def install(unet: nn.Module) -> None:
    """Use UNetAttention everywhere; ConfigError for blocks with unsupported attention."""
    model: Any = unet  # attn_processors and set_attn_processor are diffusers', not nn.Module's
    for name in model.attn_processors:
        attn = model.get_submodule(name.removesuffix(".processor"))
        extras = (attn.group_norm, attn.spatial_norm, attn.norm_cross, attn.norm_q, attn.norm_k)
        if any(extras) or attn.residual_connection or attn.rescale_output_factor != 1:
            raise ConfigError(
                f"{name.removesuffix('.processor')} is not the attention of a transformer block",
                where="unet_config.down_block_types",
                cure="use CrossAttnDownBlock2D, DownBlock2D and their up blocks",
            )
    model.set_attn_processor(UNetAttention())
