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


def test_a_passed_preflight_prints_ready(capsys):
    assert recipe()({"preflight": "only"}) == 0
    assert capsys.readouterr().out.startswith("preflight: ready")


@pytest.mark.parametrize("error", [ConfigError("no such key"), DiskFull("no such key")])
def test_a_failed_preflight_prints_its_reason_and_raises(capsys, error):
    with pytest.raises(type(error)):
        recipe(error)({"preflight": "only"})
    assert capsys.readouterr().out == "preflight: NOT ready: no such key\n"


def test_a_training_run_and_an_interruption_print_no_verdict(capsys):
    assert recipe()({"preflight": True}) == 0
    with pytest.raises(Interrupted):
        recipe(Interrupted(15))({"preflight": "only"})
    assert capsys.readouterr().out == ""
