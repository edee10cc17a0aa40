"""Four numbers and a map that say how one layer's self-attention is spread; computed a few queries at a time.

p is a row of the attention averaged over heads: where one query looks, among N keys on an H x W grid.
No statistic is a function of the others. Entropy and sparsity do not change when keys are permuted, and
weigh small and large values differently (Shannon's entropy against the L2 norm); clustering changes when
keys are permuted but not when the pattern is shifted; locality changes when it is shifted.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

STATISTICS = ("locality", "entropy", "clustering", "sparsity")
FLOOR = 1e-8  # inside the logarithm, as the original has it
Rows = Float[Tensor, "b n m"]
PerQuery = Float[Tensor, "b n"]


def locality(p: Rows, distance: Float[Tensor, "n m"], longest: float) -> PerQuery:
    """1 - sum_j p_j d(i, j) / d_max, with d the distance on the grid and d_max its diagonal. 1: looks at itself."""
    return 1 - (p * distance).sum(-1) / longest


def entropy(p: Rows) -> PerQuery:
    """-sum_j p_j ln p_j / ln N. 1: looks everywhere alike; 0: at one key."""
    p = p.clamp_min(FLOOR)
    return -(p * p.log()).sum(-1) / math.log(p.shape[-1])


def clustering(p: Rows, grid: tuple[int, int]) -> PerQuery:
    """Moran's I of the row on its grid: N / W sum_ab w_ab (p_a - m)(p_b - m) / sum_a (p_a - m)^2.

    w_ab = 1 for the keys above, below, left and right, W their number, m = 1 / N. Near 1: the keys looked
    at lie together; 0: anyhow; negative: apart, as on a chessboard. Moran 1950, Biometrika 37. A row that
    departs from uniform by less than about 0.1 % counts as 0: its pattern is rounding.
    """
    deviation = (p - 1 / p.shape[-1]).unflatten(-1, grid)
    height, width = grid
    together = (deviation[..., 1:, :] * deviation[..., :-1, :]).sum((-2, -1))
    together = together + (deviation[..., 1:] * deviation[..., :-1]).sum((-2, -1))
    pairs = (height - 1) * width + height * (width - 1)
    spread = deviation.square().sum((-2, -1)) + 1e-6 / p.shape[-1]
    return (p.shape[-1] * together / (pairs * spread)).clamp(-1, 1)


def sparsity(p: Rows) -> PerQuery:
    """Hoyer's measure (sqrt N - |p|_1 / |p|_2) / (sqrt N - 1). 1: one key; 0: all alike. Hoyer 2004, JMLR 5."""
    root = math.sqrt(p.shape[-1])
    return (root - p.sum(-1) / p.square().sum(-1).sqrt()) / (root - 1)


def area_shares(cells: int, size: int, device: torch.device) -> Float[Tensor, "size cells"]:
    """The share of each of `cells` equal intervals that falls into each of `size`: columns sum to 1."""
    edges = torch.linspace(0, cells, size + 1, device=device)
    starts = torch.arange(cells, device=device)
    overlap = torch.minimum(edges[1:, None], starts + 1.0) - torch.maximum(edges[:-1, None], starts.float())
    return overlap.clamp_min(0)


def area_map(importance: Float[Tensor, "b h w"], size: int) -> Float[Tensor, "b s1 s2"]:
    """(B, H, W) -> (B, size, size): exact areas, so that all mass is kept at any size."""
    rows = area_shares(importance.shape[1], size, importance.device)
    columns = area_shares(importance.shape[2], size, importance.device)
    return rows @ importance @ columns.T


class LayerStatistics:
    """Accumulates one layer's rows; holds no attention map, only sums."""

    def __init__(self, batch: int, grid: tuple[int, int], device: torch.device) -> None:
        height, width = grid
        self.grid, self.count = grid, height * width
        rows = torch.arange(height, device=device, dtype=torch.float32).repeat_interleave(width)
        columns = torch.arange(width, device=device, dtype=torch.float32).repeat(height)
        self.places = torch.stack([rows, columns], -1)
        self.longest = math.hypot(height - 1, width - 1)
        self.sums = torch.zeros(batch, len(STATISTICS), device=device)
        self.columns = torch.zeros(batch, self.count, device=device)

    def add(self, p: Rows, start: int) -> None:
        """Rows of the queries start, start + 1, ... (fp32, summing to 1)."""
        queries = self.places[start : start + p.shape[1]]
        distance = (queries[:, None] - self.places).square().sum(-1).sqrt()
        each = (locality(p, distance, self.longest), entropy(p), clustering(p, self.grid), sparsity(p))
        self.sums += torch.stack([values.sum(-1) for values in each], -1)
        self.columns += p.sum(1)

    def statistics(self) -> Float[Tensor, "b s"]:
        """Means over all queries, in the order of STATISTICS."""
        return self.sums / self.count

    def importance(self) -> Float[Tensor, "b h w"]:
        """How much each key is looked at; mean 1."""
        return self.columns.unflatten(-1, self.grid)
