"""Attention maps with known statistics, and pairs that differ in a single statistic."""

import math

import pytest
import torch

from tinyflux_pl.experts.sol_attention import summarise
from tinyflux_pl.experts.sol_statistics import STATISTICS, LayerStatistics, area_map

GRID = (8, 8)
COUNT = 64


def measure(rows, grid=GRID, tile=7):
    """The four statistics of one map (N, N), added a few queries at a time."""
    layer = LayerStatistics(1, grid, rows.device)
    for start in range(0, len(rows), tile):
        layer.add(rows[None, start : start + tile], start)
    return dict(zip(STATISTICS, layer.statistics()[0].tolist(), strict=True)), layer


def looking_at(cells, grid=GRID):
    """Every query looks at the same cells, alike."""
    row = torch.zeros(grid)
    for y, x in cells:
        row[y % grid[0], x % grid[1]] = 1 / len(cells)
    return row.flatten().expand(grid[0] * grid[1], -1)


BLOCK = [(y, x) for y in range(2, 5) for x in range(2, 5)]
SCATTER = [(0, 0), (0, 3), (0, 6), (3, 1), (3, 4), (3, 7), (6, 0), (6, 3), (6, 6)]


def test_uniform_attention_has_known_statistics():
    statistics, layer = measure(torch.full((COUNT, COUNT), 1 / COUNT))
    assert statistics["entropy"] == pytest.approx(1, abs=1e-5)
    assert statistics["sparsity"] == pytest.approx(0, abs=1e-5)
    assert statistics["clustering"] == pytest.approx(0, abs=1e-5)
    positions = torch.cartesian_prod(torch.arange(8.0), torch.arange(8.0))
    expected = 1 - torch.cdist(positions, positions).mean().item() / math.hypot(7, 7)
    assert statistics["locality"] == pytest.approx(expected, abs=1e-5)
    torch.testing.assert_close(
        area_map(layer.importance() / COUNT, 8), torch.full((1, 8, 8), 1 / COUNT)
    )


def test_identity_attention_has_known_statistics():
    statistics, _ = measure(torch.eye(COUNT))
    assert statistics["locality"] == pytest.approx(1)
    assert statistics["entropy"] == pytest.approx(0, abs=1e-4)
    assert statistics["sparsity"] == pytest.approx(1, abs=1e-5)
    assert statistics["clustering"] == pytest.approx(0, abs=0.05)  # one key is no cluster


def test_attention_to_one_corner_has_known_statistics_and_map():
    statistics, layer = measure(looking_at([(0, 0)]))
    assert statistics["entropy"] == pytest.approx(0, abs=1e-4) and statistics[
        "sparsity"
    ] == pytest.approx(1, abs=1e-5)
    assert statistics["locality"] < 0.55  # on average half the diagonal away
    spatial = area_map(layer.importance() / COUNT, 8)
    assert spatial[0, 0, 0] == pytest.approx(1) and spatial.sum() == pytest.approx(1)


def test_clustering_is_high_for_a_block_and_low_for_a_checkerboard():
    assert measure(looking_at(BLOCK))[0]["clustering"] > 0.5
    board = [(y, x) for y in range(8) for x in range(8) if (y + x) % 2]
    assert measure(looking_at(board))[0]["clustering"] == pytest.approx(-1, abs=0.02)
    assert abs(measure(looking_at(SCATTER))[0]["clustering"]) < 0.25


def test_a_local_band_is_more_local_than_uniform():
    positions = torch.cartesian_prod(torch.arange(8.0), torch.arange(8.0))
    band = torch.softmax(-torch.cdist(positions, positions) * 2, -1)
    statistics, _ = measure(band)
    assert statistics["locality"] > 0.85 and statistics["clustering"] > 0.2


def different(first, second):
    return {name for name in STATISTICS if abs(first[name] - second[name]) > 0.02}


def test_clustering_is_independent_of_the_other_statistics():
    """Keys one and two steps away: adjacent on one side, not adjacent on opposite sides."""
    grid, touching, opposite = (16, 16), torch.eye(256), torch.eye(256)
    for query in range(256):
        if 2 <= query % 16 < 14:
            touching[query], opposite[query] = 0, 0
            touching[query, [query + 1, query + 2]] = 0.5
            opposite[query, [query + 1, query - 2]] = 0.5
    assert different(measure(touching, grid)[0], measure(opposite, grid)[0]) == {"clustering"}


def test_locality_is_independent_of_the_other_statistics():
    """The same block, seen from under it and from afar: all but locality are equal."""
    grid, here = (16, 16), torch.zeros(256, 256)
    away = torch.zeros(256, 256)
    for query in range(256):
        y, x = divmod(query, 16)
        for rows, shift in ((here, 0), (away, 8)):
            top = 1 + (min(max(y - 1, 0), 12) // 2 + shift // 2) % 6 * 2
            left = 1 + (min(max(x - 1, 0), 12) // 2 + shift // 2) % 6 * 2
            rows[query].view(16, 16)[top : top + 3, left : left + 3] = 1 / 9
    assert different(measure(here, grid)[0], measure(away, grid)[0]) == {"locality"}


def test_entropy_and_sparsity_are_independent():
    """Two spreads of equal entropy, one with a peak and a long tail, have different L2 norms."""

    def entropy(row):
        return -(row.clamp_min(1e-30) * row.clamp_min(1e-30).log()).sum().item()

    def peak(height):
        return torch.cat(
            [torch.tensor([height]), torch.full((COUNT - 1,), (1 - height) / (COUNT - 1))]
        )

    flat = torch.zeros(COUNT)
    flat[:16] = 1 / 16
    low, high = 1 / COUNT, 1 - 1e-6  # find the peak with the entropy of 16 equal keys
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if entropy(peak(middle)) > math.log(16) else (low, middle)
    first, second = measure(flat.expand(COUNT, -1))[0], measure(peak(low).expand(COUNT, -1))[0]
    assert first["entropy"] == pytest.approx(second["entropy"], abs=1e-4)
    assert abs(first["sparsity"] - second["sparsity"]) > 0.1


def test_no_statistic_of_random_attention_follows_from_the_other_three():
    generator = torch.Generator().manual_seed(0)
    positions = torch.cartesian_prod(torch.arange(8.0), torch.arange(8.0))
    shares = []
    for _ in range(120):
        sharpness, nearness, smooth = torch.rand(3, generator=generator).tolist()
        field = torch.randn(COUNT, 8, 8, generator=generator)
        blurred = torch.nn.functional.avg_pool2d(field[None], 3, 1, 1)[0] * 3
        field = (smooth * blurred + (1 - smooth) * field).flatten(1)
        rows = torch.softmax(
            4 * sharpness * field - 2 * nearness * torch.cdist(positions, positions), -1
        )
        shares.append(list(measure(rows, tile=COUNT)[0].values()))
    table = torch.tensor(shares).double()
    table = (table - table.mean(0)) / table.std(0)
    for left_out in range(4):
        other_three = table[:, [i for i in range(4) if i != left_out]]
        features = torch.cat(
            [other_three, other_three.square(), torch.ones(len(table), 1).double()], -1
        )
        fit = features @ torch.linalg.lstsq(features, table[:, left_out : left_out + 1]).solution
        unexplained = (table[:, left_out : left_out + 1] - fit).var().item()
        assert unexplained > 0.005, STATISTICS[left_out]


@pytest.mark.parametrize("tile", [1, 5, 64, 100])
def test_statistics_do_not_depend_on_the_tile_size(tile):
    rows = torch.softmax(
        torch.randn(COUNT, COUNT, generator=torch.Generator().manual_seed(1)) * 3, -1
    )
    untiled, tiled = measure(rows, tile=COUNT)[1], measure(rows, tile=tile)[1]
    torch.testing.assert_close(untiled.statistics(), tiled.statistics())
    torch.testing.assert_close(untiled.importance(), tiled.importance())


@pytest.mark.parametrize("grid", [(64, 64), (12, 12), (5, 9), (8, 8), (4, 6), (1, 3)])
def test_the_map_conserves_attention_mass_at_any_size(grid):
    importance = torch.rand(2, *grid, generator=torch.Generator().manual_seed(2))
    small = area_map(importance, 8)
    torch.testing.assert_close(small.sum((1, 2)), importance.sum((1, 2)))
    corner = torch.zeros(1, *grid)
    corner[0, 0, 0] = 1
    assert area_map(corner, 8)[0, 4:, :].sum() == 0 or grid[0] < 2


def test_layers_have_equal_weight_at_any_resolution():
    fine = measure(looking_at([(0, 0)], (16, 16)), (16, 16))[1]
    coarse = measure(looking_at([(3, 3)], (4, 4)), (4, 4))[1]
    _, spatial = summarise([fine, coarse], 8)
    assert spatial[0, 0, 0] == pytest.approx(0.5, abs=1e-5)
    assert spatial[0, 6:, 6:].sum() == pytest.approx(0.5, abs=1e-5)
