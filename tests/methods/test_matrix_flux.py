"""The matrix of families and methods, its rows of FLUX: each cell trains, resumes and draws."""

import pytest

from tests.methods import matrix, matrix_cells

FAMILIES = ("flux1", "flux2", "flux3")


@pytest.fixture(scope="module", params=FAMILIES)
def project(request, tmp_path_factory):
    with matrix.project(request.param, tmp_path_factory.mktemp(request.param)) as written:
        yield written


@pytest.mark.parametrize("method", matrix.METHODS)
def test_a_flux_trains_resumes_and_samples_with_a_method_of_the_matrix(project, method):
    matrix_cells.check(project, method)
