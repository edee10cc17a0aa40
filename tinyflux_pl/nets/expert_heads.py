"""Heads that predict the experts' signals from time and pooled text, without teachers."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Num
from torch import Tensor, nn


def choose(teacher: Tensor | None, predicted: Tensor, mask: Bool[Tensor, " b"] | None) -> Tensor:
    """The teacher's rows where `mask` is True (None: everywhere), else the predicted ones."""
    if teacher is None:
        return predicted
    if mask is None:
        return teacher.to(predicted.dtype)
    return torch.where(
        mask.view(-1, *[1] * (predicted.dim() - 1)), teacher.to(predicted.dtype), predicted
    )


class LunePredictor(nn.Module):
    """Predict a teacher's features, and turn features into a conditioning signal."""

    def __init__(
        self, time: int, pooled: int, hidden: int, expert: int, out: int, dropout: float
    ) -> None:
        super().__init__()
        self.input_proj = nn.Linear(time + pooled, hidden)
        self.predictor = nn.Sequential(
            nn.SiLU(),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
            nn.Linear(hidden, expert),
        )
        self.output_proj = nn.Sequential(nn.LayerNorm(expert), nn.Linear(expert, out))
        self.expert_gate = nn.Parameter(torch.zeros(()))

    def forward(
        self,
        time: Float[Tensor, "b d"],
        pooled: Float[Tensor, "b p"],
        features: Float[Tensor, "b e"] | None = None,
        mask: Bool[Tensor, " b"] | None = None,
    ) -> dict[str, Tensor | str | None]:
        """The prediction (B, E) and the gated signal (B, D) of the features in use."""
        predicted = self.predictor(self.input_proj(torch.cat((time, pooled), -1)))
        used = choose(features, predicted, mask)
        signal = torch.sigmoid(self.expert_gate) * self.output_proj(used)
        source = "predicted" if features is None else "real" if mask is None else "mixed"
        return {
            "pred": predicted,
            "target": features,
            "expert_pred": predicted,
            "expert_signal": signal,
            "expert_used": source,
        }


class SolPrior(nn.Module):
    """Predict attention statistics and an importance map, blended with functions of time.

    density: every map has mean 1 (prediction softmax * S^2, teacher sum 1 * S^2, geometry / its
    mean), so that teacher and prediction are interchangeable. sigmoid: the published scales, which
    are not.
    """

    def __init__(
        self,
        time: int,
        pooled: int,
        hidden: int,
        heads: int,
        size: int,
        stats: int,
        weight: float,
        map_kind: str,
    ) -> None:
        super().__init__()
        self.heads, self.size, self.map_kind = heads, size, map_kind
        self.stat_predictor = _mlp(time + pooled, hidden, stats)
        self.spatial_predictor = _mlp(time + pooled, hidden, size * size)
        self.stat_to_temperature = nn.Sequential(
            nn.Linear(stats, hidden // 2), nn.SiLU(), nn.Linear(hidden // 2, heads)
        )
        share = min(max(weight, 1e-4), 1 - 1e-4)
        self.blend_gate = nn.Parameter(torch.tensor(math.log(share / (1 - share))))

    def forward(
        self,
        time: Float[Tensor, "b d"],
        pooled: Float[Tensor, "b p"],
        t: Float[Tensor, " b"],
        stats: Float[Tensor, "b s"] | None = None,
        spatial: Float[Tensor, "b s1 s2"] | None = None,
        mask: Bool[Tensor, " b"] | None = None,
    ) -> dict[str, Tensor]:
        """Temperature (B, h), importance (B, S, S) and predictions; t is 1 at data, 0 at noise."""
        head_input = torch.cat((time, pooled), -1)
        predicted_stats = self.stat_predictor(head_input)
        logits = self.spatial_predictor(head_input).float()
        if self.map_kind == "density":
            predicted_map = logits.softmax(-1).mul(self.size**2).view(-1, self.size, self.size)
            teacher = None if spatial is None else spatial.float() * self.size**2
        else:
            predicted_map = logits.sigmoid().view(-1, self.size, self.size)
            teacher = None if spatial is None else spatial.float()
        blend = torch.sigmoid(self.blend_gate.float())
        learned = F.softplus(self.stat_to_temperature(choose(stats, predicted_stats, mask)).float())
        return {
            "temperature": blend * self.geometric_temperature(t) + (1 - blend) * learned,
            "spatial_importance": blend * self.geometric_map(t)
            + (1 - blend) * choose(teacher, predicted_map, mask),
            "stats_pred": predicted_stats,
            "spatial_pred": predicted_map,
            "pred_stats": predicted_stats,
            "pred_spatial": predicted_map,
        }

    def geometric_temperature(self, t: Float[Tensor, " b"]) -> Float[Tensor, "b h"]:
        """clamp(1 + t + an offset per head in [-0.2, 0.2], 0.5, 3)."""
        return (1 + t[:, None] + torch.linspace(-0.2, 0.2, self.heads, device=t.device)).clamp(
            0.5, 3.0
        )

    def geometric_map(self, t: Float[Tensor, " b"]) -> Float[Tensor, "b s1 s2"]:
        """From a peak exp(-2r) at the centre (t = 0) to uniform (t = 1)."""
        axis = torch.linspace(-1, 1, self.size, device=t.device)
        centre = torch.exp(-2 * (axis[:, None] ** 2 + axis**2).sqrt())
        late = t[:, None, None]
        fixed = late + (1 - late) * centre
        return fixed / fixed.mean((1, 2), keepdim=True) if self.map_kind == "density" else fixed


def map_at_tokens(
    spatial: Float[Tensor, "b s1 s2"], ids: Num[Tensor, "*b1 n axes"]
) -> Float[Tensor, "b n"]:
    """The map read bilinearly at each token's (y, x), pixel centres aligned as in an image resize.

    The grid's height and width are what the ids span (sample by sample if they differ), so
    rectangles are read right and nothing is fetched from the device to learn them.
    """
    weights = []
    for axis, size in ((1, spatial.shape[1]), (2, spatial.shape[2])):
        position = ids[..., axis].float()
        start = position.amin(-1, keepdim=True)
        extent = position.amax(-1, keepdim=True) - start + 1
        at = ((position - start + 0.5) * size / extent - 0.5).clamp(0, size - 1)
        weights.append(
            (1 - (at[..., None] - torch.arange(size, device=at.device)).abs()).clamp(min=0)
        )
    rows, columns = weights
    return (torch.matmul(rows, spatial.float()) * columns).sum(-1)


def _mlp(inside: int, hidden: int, outside: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inside, hidden),
        nn.SiLU(),
        nn.Linear(hidden, hidden),
        nn.SiLU(),
        nn.Linear(hidden, outside),
    )
