"""Four statistics and a map of one layer's self-attention, accumulated a few queries at a time.

p is a row of the attention averaged over heads: one query's weights over N keys on an H x W grid.
No statistic is a function of the others. Entropy and sparsity do not change when keys are permuted,
and weigh small and large values differently (Shannon's entropy against the L2 norm); clustering
changes when keys are permuted but not when the pattern is shifted; locality changes when it is
shifted.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

STATISTICS = ("locality", "entropy", "clustering", "sparsity")
LOG_EPS = 1e-8  # inside the logarithm, as in the original
Rows = Float[Tensor, "b n m"]
PerQuery = Float[Tensor, "b n"]


def locality(p: Rows, distance: Float[Tensor, "n m"], diagonal: float) -> PerQuery:
    """1 - sum_j p_j d(i, j) / d_max, d the distance on the grid, d_max its diagonal.

    1: only itself.
    """
    return 1 - (p * distance).sum(-1) / diagonal


def entropy(p: Rows) -> PerQuery:
    """-sum_j p_j ln p_j / ln N. 1: uniform; 0: one key."""
    p = p.clamp_min(LOG_EPS)
    return -(p * p.log()).sum(-1) / math.log(p.shape[-1])


def clustering(p: Rows, grid: tuple[int, int]) -> PerQuery:
    """Moran's I of the row on its grid: N / W sum_ab w_ab (p_a - m)(p_b - m) / sum_a (p_a - m)^2.

    w_ab = 1 for the keys above, below, left and right, W their number, m = 1 / N. Near 1: the
    attended keys are adjacent; 0: random; negative: apart, as on a chessboard. Moran 1950,
    Biometrika 37. A row within about 0.1 % of uniform counts as 0: its pattern is rounding error.
    """
    deviation = (p - 1 / p.shape[-1]).unflatten(-1, grid)
    height, width = grid
    covariance = (deviation[..., 1:, :] * deviation[..., :-1, :]).sum((-2, -1))
    covariance = covariance + (deviation[..., 1:] * deviation[..., :-1]).sum((-2, -1))
    pairs = (height - 1) * width + height * (width - 1)
    spread = deviation.square().sum((-2, -1)) + 1e-6 / p.shape[-1]
    return (p.shape[-1] * covariance / (pairs * spread)).clamp(-1, 1)


def sparsity(p: Rows) -> PerQuery:
    """Hoyer's (sqrt N - |p|_1 / |p|_2) / (sqrt N - 1). 1: one key; 0: uniform.

    Hoyer 2004, JMLR 5.
    """
    root = math.sqrt(p.shape[-1])
    return (root - p.sum(-1) / p.square().sum(-1).sqrt()) / (root - 1)


def area_shares(cells: int, size: int, device: torch.device) -> Float[Tensor, "size cells"]:
    """Fraction of each of `cells` equal intervals that lies in each of `size`: columns sum to 1."""
    edges = torch.linspace(0, cells, size + 1, device=device)
    starts = torch.arange(cells, device=device)
    overlap = torch.minimum(edges[1:, None], starts + 1.0) - torch.maximum(
        edges[:-1, None], starts.float()
    )
    return overlap.clamp_min(0)


def area_map(importance: Float[Tensor, "b h w"], size: int) -> Float[Tensor, "b s1 s2"]:
    """(B, H, W) -> (B, size, size) by exact areas, which preserves the sum at any size."""
    rows = area_shares(importance.shape[1], size, importance.device)
    columns = area_shares(importance.shape[2], size, importance.device)
    return rows @ importance @ columns.T


class LayerStatistics:
    """Accumulates sums over one layer's rows of attention, never the attention itself."""

    def __init__(self, batch: int, grid: tuple[int, int], device: torch.device) -> None:
        height, width = grid
        self.grid = grid
        self.count = height * width
        rows = torch.arange(height, device=device, dtype=torch.float32).repeat_interleave(width)
        columns = torch.arange(width, device=device, dtype=torch.float32).repeat(height)
        self.positions = torch.stack([rows, columns], -1)
        self.diagonal = math.hypot(height - 1, width - 1)
        self.sums = torch.zeros(batch, len(STATISTICS), device=device)
        self.columns = torch.zeros(batch, self.count, device=device)

    def add(self, p: Rows, start: int) -> None:
        """Add the rows of queries start, start + 1, ... (fp32, each of sum 1)."""
        queries = self.positions[start : start + p.shape[1]]
        distance = (queries[:, None] - self.positions).square().sum(-1).sqrt()
        per_query = (
            locality(p, distance, self.diagonal),
            entropy(p),
            clustering(p, self.grid),
            sparsity(p),
        )
        self.sums += torch.stack([values.sum(-1) for values in per_query], -1)
        self.columns += p.sum(1)

    def statistics(self) -> Float[Tensor, "b s"]:
        """Means over all queries, in the order of STATISTICS."""
        return self.sums / self.count

    def importance(self) -> Float[Tensor, "b h w"]:
        """Total weight of each key over all queries; mean 1."""
        return self.columns.unflatten(-1, self.grid)
