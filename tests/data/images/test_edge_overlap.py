"""The overlap of edges with a map: exact pairs, shifts, and pictures without edges."""

import numpy as np

from tinyflux_pl.data.images.edge_overlap import edge_overlap


def line(column, side=16):
    marks = np.zeros((side, side), bool)
    marks[:, column] = True
    return marks


def test_edges_overlap_within_a_pixel_and_not_beyond():
    assert edge_overlap(line(5), line(5)) == edge_overlap(line(5), line(6)) == 1.0
    assert edge_overlap(line(5), line(7)) == 0.0 and edge_overlap(line(5), line(7), 2) == 1.0


def test_missing_and_additional_edges_both_count():
    both = line(3) | line(12)
    assert edge_overlap(both, line(3)) == edge_overlap(line(3), both) == 2 / 3


def test_pictures_without_edges_agree_with_each_other_alone():
    none = np.zeros((8, 8), bool)
    assert edge_overlap(none, none) == 1.0 and edge_overlap(none, line(2, 8)) == 0.0
