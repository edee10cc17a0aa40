"""The mean over the tokens of a text, without its padding."""

from jaxtyping import Bool, Float
from torch import Tensor


def masked_mean(tokens: Float[Tensor, "b l d"], mask: Bool[Tensor, "b l"]) -> Float[Tensor, "b d"]:
    """The mean over the tokens where the mask is True; 0 without such tokens."""
    share = mask.to(tokens.dtype)[..., None]
    return (tokens * share).sum(1) / share.sum(1).clamp_min(1)
