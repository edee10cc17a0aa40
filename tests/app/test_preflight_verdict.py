"""preflight=only ends with a verdict: ready, or not and why."""

import pytest

from tinyflux_pl.app.preflight.verdict import with_verdict
from tinyflux_pl.core.errors import ConfigError, DiskFull, Interrupted


def recipe(error=None):
    def run(config):
        if error:
            raise error
        return 0

    return with_verdict(run)


def test_ready(capsys):
    assert recipe()({"preflight": "only"}) == 0
    assert capsys.readouterr().out.startswith("preflight: ready")


@pytest.mark.parametrize("error", [ConfigError("no such key"), DiskFull("no such key")])
def test_not_ready_and_why_and_the_error_goes_on(capsys, error):
    with pytest.raises(type(error)):
        recipe(error)({"preflight": "only"})
    assert capsys.readouterr().out == "preflight: NOT ready: no such key\n"


def test_a_run_says_nothing_of_it_and_a_stop_is_no_verdict(capsys):
    assert recipe()({"preflight": True}) == 0
    with pytest.raises(Interrupted):
        recipe(Interrupted(15))({"preflight": "only"})
    assert capsys.readouterr().out == ""
