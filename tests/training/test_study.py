import json
import sys

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from crossrank.errors import ConfigError
from crossrank.training.study import open_study, trial_of, unfinished

SPACE = {"optimizer.lr": FloatDistribution(1e-5, 1e-3, log=True), "policy": CategoricalDistribution(["a", "b"])}


@pytest.mark.parametrize("storage", ["sqlite", "journal"])
def test_a_study_that_is_opened_again_knows_what_was_told(storage, tmp_path):
    study = open_study(tmp_path, storage)
    first, second = study.ask(SPACE), study.ask(SPACE)
    study.tell(first.number, 0.5)
    again = open_study(tmp_path, storage)
    assert (again.best_value, again.best_params) == (0.5, first.params)
    assert [trial.number for trial in unfinished(again)] == [second.number]


def test_it_draws_where_what_was_told_is_high(tmp_path):
    study = open_study(tmp_path, "journal", seed=1)
    for _ in range(40):
        trial = study.ask({"x": FloatDistribution(0, 1)})
        study.tell(trial.number, -((trial.params["x"] - 0.3) ** 2))
    late = [abs(trial.params["x"] - 0.3) for trial in study.trials[20:]]
    assert sum(late) / len(late) < 0.29 / 2  # 0.29 is the mean distance of what is drawn from 0 to 1 by chance


def test_what_is_drawn_depends_on_the_seed_and_the_number_of_jobs(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    draws = [open_study(tmp_path / name, "journal", 7).ask(SPACE).params for name in ("a", "b", "a")]
    assert draws[0] == draws[1] != draws[2]


def test_a_job_finds_its_trial_by_what_was_drawn(tmp_path):
    study = open_study(tmp_path, "sqlite")
    trials = [study.ask(SPACE) for _ in range(3)]
    job = tmp_path / "job"
    job.mkdir()
    words = ["experiment=smoke", *(f"{key}={value}" for key, value in trials[1].params.items())]
    (job / "origin.json").write_text(json.dumps({"overrides": words}))
    found = trial_of(job)
    assert found.number == trials[1].number
    found.report(0.25, 3)
    assert open_study(tmp_path, "sqlite").trials[1].intermediate_values == {3: 0.25}
    study.tell(1, 0.5)
    assert trial_of(job) is None


def test_a_run_that_is_no_job_of_a_search_has_no_trial(tmp_path):
    (tmp_path / "job").mkdir()
    assert trial_of(tmp_path / "job") is None
    open_study(tmp_path, "sqlite")
    assert trial_of(tmp_path / "job") is None


def test_what_falls_behind_the_median_is_pruned_once_there_is_one(tmp_path):
    study = open_study(tmp_path, "journal")
    for i in range(6):
        trial = study.ask(SPACE)
        trial.report(0.1 * i, 3)
        assert trial.should_prune() == (i == 5 and 0.1 * i < 0.2)
        study.tell(trial.number, 0.1 * i)
    worse = study.ask(SPACE)
    worse.report(0.1, 3)  # the median of 0 to 0.5 is 0.25
    assert worse.should_prune()


def test_a_storage_that_is_none_and_an_absent_package_are_named(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"hydra.sweeper.storage: it is one of sqlite, journal, got 'redis'"):
        open_study(tmp_path, "redis")
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"pip install -e '.\[sweeps\]'"):
        open_study(tmp_path, "sqlite")
    assert optuna.__version__
