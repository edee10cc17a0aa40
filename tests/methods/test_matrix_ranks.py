"""The matrix of families and methods on two ranks: each cell moves the same weights on both."""

import pytest

from tests.methods import matrix, two_ranks


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    with two_ranks.two_ranks(tmp_path_factory.mktemp("ranks")) as both:
        yield both


@pytest.fixture(scope="module", params=matrix.FAMILIES)
def project(request, tmp_path_factory, pool):
    with matrix.project(request.param, tmp_path_factory.mktemp(request.param)) as written:
        yield written


@pytest.mark.parametrize("method", matrix.METHODS)
def test_two_ranks_move_the_same_weights_in_a_cell_of_the_matrix(project, method, pool):
    if method in matrix.COMBINED and project.family not in matrix.PROJECT_FAMILIES:
        return
    words = (*project.words(method), "optimizer.weight_decay=0", f"run={method}")
    first, second = pool.train(project.folder, *words)
    reason = matrix.REASONS.get((project.family, method))
    if reason is not None:
        assert reason in str(first.refusal) and reason in str(second.refusal)
        return
    assert first.refusal is second.refusal is None
    assert first.before == second.before and first.after == second.after
    part = matrix.METHODS[method][1]
    names = {name for name in first.after if part in name}
    # What has a gradient on either rank moves, and nothing else: without decay, a part behind a
    # gate that is still exactly zero stays as it is.
    taught = first.taught | second.taught
    reached = first.reached | second.reached
    assert taught <= first.moved <= reached <= names
    # Of a new network the gates are still zero in the second step.
    assert len(first.moved) > len(names) / (6 if method == "full" else 2)
