"""The matrix of families and methods: each cell trains, saves, resumes, reloads and samples.

Otherwise its reason to refuse stands in docs/families.md. test_matrix_flux.py has the rows of FLUX,
so that two workers share the time.
"""

import re

import pytest

from tests.house.source import ROOT
from tests.methods import matrix, matrix_cells, test_matrix_flux

FAMILIES = ("tinyflux", "flux_core", "sdxl", "sd3")


@pytest.fixture(scope="module", params=FAMILIES)
def project(request, tmp_path_factory):
    with matrix.project(request.param, tmp_path_factory.mktemp(request.param)) as written:
        yield written


@pytest.mark.parametrize("method", matrix.METHODS)
def test_a_family_trains_resumes_and_samples_with_a_method_of_the_matrix(project, method):
    matrix_cells.check(project, method)


def test_every_family_of_the_matrix_has_a_test():
    assert sorted((*FAMILIES, *test_matrix_flux.FAMILIES)) == sorted(matrix.FAMILIES)


def test_the_documented_matrix_lists_exactly_the_tested_cells():
    text = (ROOT / "docs" / "families.md").read_text()
    section = text.partition("## Methods")[2].partition("\n## ")[0]
    lines = re.findall(r"^\| (.+) \|$", section, re.M)
    header, *rows = [[cell.strip(" `") for cell in line.split(" | ")] for line in lines]
    assert header == ["family", *matrix.METHODS]
    documented = {row[0]: dict(zip(matrix.METHODS, row[1:], strict=True)) for row in rows}
    assert documented.keys() == set(matrix.FAMILIES)
    for family, cells in documented.items():
        for method, text in cells.items():
            reason = matrix.REASONS.get((family, method))
            assert text == "trains" if reason is None else reason in text
