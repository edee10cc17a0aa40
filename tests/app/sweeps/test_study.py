"""The trials of a search: drawn by the sampler, counted, and run again after a kill, none twice."""

from types import SimpleNamespace

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from tinyflux_pl.app.sweeps import pruner, space, study_file
from tinyflux_pl.app.sweeps.rows import Row
from tinyflux_pl.app.sweeps.study import Trials
from tinyflux_pl.config.bind import bind
from tinyflux_pl.config.hydra_options import Search
from tinyflux_pl.core.errors import ConfigError, Pruned
from tinyflux_pl.training.last_values import LastValues
from tinyflux_pl.training.pruning import Pruning

SETTINGS = {
    "sampler": "tpe",
    "seed": 0,
    "startup_trials": 2,
    "n_trials": 6,
    "n_jobs": 1,
    "direction": "minimize",
    "pruner": "median",
    "pruner_startup_trials": 1,
    "pruner_warmup_steps": 0,
    "params": None,
}
SWEPT = ("optimizer.lr=tag(log,interval(1e-4,1e-1))", "model=tiny,small", "steps=range(10,40,10)")
GRID = ("model=tiny,small", "steps=range(10,40,10)")


def parsed(*lines):
    return space.split(OverridesParser.create().parse_overrides(list(lines)))[0]


def trials(folder, *lines, metrics=("validation_loss",), **changes):
    settings = bind(Search, {**SETTINGS, **changes}, "hydra.sweeper")
    return Trials(folder / "study.journal", settings, parsed(*(lines or SWEPT)), metrics)


def ended(number, state="finished", value=1.0):
    return Row(number, [], "", "1 on nowhere", state=state, value=value)


def run(search, kill_after=None):
    """Values of the trials that end, until none is left or one is `killed` as it runs."""
    done = {}
    while batch := search.ask():
        for number, params in batch.items():
            if len(done) == kill_after:
                return done
            done[number] = params
            search.tell(number, ended(number, value=float(params.get("optimizer.lr", number))))
    return done


def test_search_spaces_are_read_from_hydra_sweep_syntax():
    dists = parsed(*SWEPT, "a=int(interval(1,5))", "b=range(0.0,1.0,0.25)", "c=choice(yes,1e-3)")
    assert dists["optimizer.lr"].log and dists["optimizer.lr"].high == 0.1
    assert dists["model"].choices == ("tiny", "small")
    assert [dists["steps"].low, dists["steps"].high, dists["steps"].step] == [10, 30, 10]
    assert (dists["a"].low, dists["a"].high) == (1, 5) and type(dists["a"].low) is int
    assert space.values("b", dists["b"]) == [0.0, 0.25, 0.5, 0.75]
    assert dists["c"].choices == ("yes", "0.001")
    assert space.line("optimizer.lr", 1e-5) == "optimizer.lr=1e-05"
    assert space.line("model", "tiny") == "model=tiny"


@pytest.mark.parametrize(
    "text", ["a=tag(log,interval(0,1))", "a=interval(2,1)", "a=tag(x,choice(1,2))", "a=range(3,3)"]
)
def test_an_invalid_distribution_is_refused_by_its_key(text):
    with pytest.raises(ConfigError) as caught:
        parsed(text)
    assert caught.value.where == "a"


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_killed_search_resumes_with_every_trial_once(tmp_path, sampler):
    first = trials(tmp_path, sampler=sampler)
    completed = run(first, kill_after=2)
    again = trials(tmp_path, sampler=sampler)
    lost = again._trials("RUNNING")
    assert [trial.number for trial in lost] == [2]
    assert again.recover({}) == 1
    rest = run(again)
    assert rest[3] == dict(lost[0].params), "the trial that was lost runs again, as number 3"
    assert list(completed) == [0, 1] and list(rest) == [3, 4, 5, 6]
    values = [tuple(params.values()) for params in [*completed.values(), *rest.values()]]
    assert len(values) == len(set(values)) == 6
    assert trials(tmp_path, sampler=sampler).ask() == {} and again.lost() == {2}


def test_a_resumed_random_search_draws_the_trials_of_an_uninterrupted_one(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    uninterrupted = run(trials(tmp_path / "a", sampler="random"))
    part = run(trials(tmp_path / "b", sampler="random", n_trials=3))
    rest = run(trials(tmp_path / "b", sampler="random"))
    assert uninterrupted == {**part, **rest}


def test_a_grid_search_has_every_combination_once_also_after_a_kill(tmp_path):
    first = trials(tmp_path, *GRID, sampler="grid", n_trials=100, n_jobs=2)
    completed = run(first, kill_after=3)
    again = trials(tmp_path, *GRID, sampler="grid", n_trials=100, n_jobs=2)
    again.recover({})
    rest = run(again)
    values = [tuple(params.values()) for params in [*completed.values(), *rest.values()]]
    assert sorted(values) == sorted((m, s) for m in ("tiny", "small") for s in (10, 20, 30))


def test_a_grid_over_real_numbers_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"every value of optimizer\.lr"):
        trials(tmp_path, sampler="grid").ask()


def test_trials_that_finished_without_the_search_count_and_running_ones_are_refused(tmp_path):
    search = trials(tmp_path, n_jobs=3)
    assert list(search.ask()) == [0, 1, 2]
    rows = {0: ended(0, value=0.5), 1: ended(1, "failed", None)}
    again = trials(tmp_path)
    with pytest.raises(ConfigError, match="trial 2 of this search is still run"):
        again.recover({**rows, 2: ended(2, "running", None)})
    assert again.recover(rows) == 1 and again.best()[0].value == 0.5
    assert [t.state.name for t in again.study.trials] == ["COMPLETE", "FAIL", "FAIL", "WAITING"]


def test_a_study_is_not_continued_with_another_search_space(tmp_path):
    trials(tmp_path).require_same_question(["seed=0"])
    trials(tmp_path, n_trials=9).require_same_question(["seed=0"])
    with pytest.raises(ConfigError, match="its fixed differ"):
        trials(tmp_path).require_same_question(["seed=1"])
    with pytest.raises(ConfigError, match="its space differ"):
        trials(tmp_path, *GRID).require_same_question(["seed=0"])


def test_a_trial_lost_twice_is_abandoned(tmp_path):
    search = trials(tmp_path, n_trials=2)
    numbers = []
    while batch := search.ask():
        (number,) = batch
        numbers.append(number)
        search.tell(number, ended(number, "interrupted", None) if number < 3 else ended(number))
    assert numbers == [0, 1, 2, 3] and search.lost() == {0, 1}


def test_a_nonfinite_objective_fails_the_trial(tmp_path):
    search = trials(tmp_path, n_trials=1)
    search.ask()
    search.tell(0, ended(0, value=float("nan")))
    assert search.study.trials[0].state.name == "FAIL" and not search.ask()


def test_a_journal_line_truncated_by_a_kill_is_removed(tmp_path):
    search = trials(tmp_path, n_trials=2)
    search.ask()
    with open(search.file, "ab") as journal:
        journal.write(b'{"op_code": 6, "worker')
    search.tell(0, ended(0))
    assert [t.state.name for t in trials(tmp_path).study.trials] == ["COMPLETE"]


class Step:
    """The attributes of trainer and module that a callback reads."""

    world_size = 1

    def __init__(self, step):
        self.step = step


def test_a_trial_worse_than_the_median_is_pruned_at_a_measurement(tmp_path):
    search = trials(tmp_path)
    pruner.store(search.study, search.settings, search.metrics)

    plain = {"callbacks": {"validation": {"every_steps": 2}}}

    def train(loss):
        (number,) = search.ask()
        trial = {"study": str(search.file), "number": number}
        config = SimpleNamespace(plain=plain, steps=10, trial=trial)
        logged = LastValues()
        (callback,) = pruner.callback(config, logged)
        assert isinstance(callback, Pruning)
        for step in range(1, 11):
            if step % 2 == 0:
                logged.log_metrics({"validation/loss": loss}, step)
            callback.on_train_batch_end(Step(0), Step(step))
        search.tell(number, ended(number, value=loss))
        return number

    train(1.0)
    train(0.5)
    with pytest.raises(Pruned) as stop:
        train(2.0)
    assert stop.value.value == 2.0 and "pruned at step 2: validation/loss is 2" in stop.value.what
    search.tell(2, ended(2, "pruned", 2.0))
    study = study_file.load(search.file, None)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "COMPLETE", "PRUNED"]
    assert list(study.trials[0].intermediate_values) == [2, 4, 6, 8], "not the last step"


def test_without_a_pruner_a_trial_reports_no_intermediate_values(tmp_path):
    search = trials(tmp_path, pruner=None)
    pruner.store(search.study, search.settings, search.metrics)

    config = SimpleNamespace(trial={"study": str(search.file), "number": 0})
    assert pruner.callback(config, LastValues()) == []
