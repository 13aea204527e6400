"""The search of hydra_plugins, with a launcher that stands in for the jobs; whole sweeps are run in test_train.py."""

import json
from types import SimpleNamespace

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from optuna.trial import TrialState

from crossrank.training.study import open_study
from hydra_plugins.crossrank_sweeps import TpeSweeper, _distribution

PARAMS = {"optimizer.lr": "tag(log,interval(1e-5,1e-3))", "policy": "choice(recipe,hardest)"}


class Launcher:
    """Runs a job by writing its result; the job of a number in `fails`, `prunes` or `dies` does not reach its end."""

    def __init__(self, folder, fails=(), prunes=(), dies=()):
        self.folder, self.fails, self.prunes, self.dies = folder, fails, prunes, dies
        self.jobs = []

    def launch(self, jobs, initial_job_idx):
        returns = []
        for i, words in enumerate(jobs, initial_job_idx):
            if i in self.dies:
                raise KeyboardInterrupt
            self.jobs.append(words)
            place = self.folder / f"job-{len(self.jobs)}"
            place.mkdir(exist_ok=True)
            lr = float(next(word for word in words if word.startswith("optimizer.lr=")).partition("=")[2])
            if i not in self.fails:
                result = {"best_value": -abs(lr - 1e-4), "pruned_at": 3 if i in self.prunes else None}
                (place / "result.json").write_text(json.dumps(result))
            hydra_cfg = OmegaConf.create({"hydra": {"runtime": {"output_dir": str(place)}}})
            returns.append(SimpleNamespace(hydra_cfg=hydra_cfg))
        return returns


def search(folder, launcher, trials=6, arguments=("seed=3",), **settings):
    sweeper = TpeSweeper(PARAMS, trials, storage="journal", **settings)
    sweeper.config = OmegaConf.create({"hydra": {"sweep": {"dir": str(folder)}}})
    sweeper.context = SimpleNamespace(config_loader=None)
    sweeper.launcher = launcher
    sweeper.sweep(list(arguments))
    return open_study(folder, "journal")


def test_every_job_gets_one_value_of_each_and_the_study_what_came_of_it(tmp_path):
    launcher = Launcher(tmp_path, fails=[1], prunes=[2])
    study = search(tmp_path, launcher)
    assert [trial.state for trial in study.trials] == [
        TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED, *[TrialState.COMPLETE] * 3,
    ]  # fmt: skip
    for words, trial in zip(launcher.jobs, study.trials, strict=True):
        assert words == ["seed=3", *(f"{key}={value}" for key, value in trial.params.items())]
        assert 1e-5 <= trial.params["optimizer.lr"] <= 1e-3
        assert trial.params["policy"] in ("recipe", "hardest")
    assert study.best_value == max(-abs(t.params["optimizer.lr"] - 1e-4) for t in study.trials if t.value is not None)


def test_the_same_command_goes_on_with_what_is_left(tmp_path):
    """The job that was under way when the search was killed is taken up with the same settings."""
    first = Launcher(tmp_path, dies=[3])
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, first)
    begun = open_study(tmp_path, "journal").trials[3].params
    second = Launcher(tmp_path)
    study = search(tmp_path, second)
    assert len(study.trials) == 6
    assert second.jobs[0] == ["seed=3", *(f"{key}={value}" for key, value in begun.items())]
    assert len(first.jobs) + len(second.jobs) == 6
    assert all(trial.state == TrialState.COMPLETE for trial in study.trials)
    third = Launcher(tmp_path)
    search(tmp_path, third)
    assert third.jobs == []


def test_jobs_are_handed_over_as_many_at_once_as_asked(tmp_path):
    sizes = []

    class Counting(Launcher):
        def launch(self, jobs, initial_job_idx):
            sizes.append(len(jobs))
            return super().launch(jobs, initial_job_idx)

    search(tmp_path, Counting(tmp_path), trials=5, at_once=2)
    assert sizes == [2, 2, 1]


def test_the_command_line_has_the_last_word(tmp_path):
    launcher = Launcher(tmp_path)
    search(tmp_path, launcher, trials=2, arguments=["policy=margin", "seed=1,2"])
    assert all("policy=margin" in words and words[-1] in ("seed=1", "seed=2") for words in launcher.jobs)


@pytest.mark.parametrize(("sweep", "expected"), [
    ("interval(0,0.2)", "FloatDistribution(high=0.2, log=False, low=0.0, step=None)"),
    ("tag(log,interval(1e-5,1e-3))", "FloatDistribution(high=0.001, log=True, low=1e-05, step=None)"),
    ("choice(a,b)", "CategoricalDistribution(choices=('a', 'b'))"),
    ("1,2", "CategoricalDistribution(choices=('1', '2'))"),
    ("range(1,4)", "CategoricalDistribution(choices=(1, 2, 3))"),
])  # fmt: skip
def test_hydras_sweeps_are_optunas_distributions(sweep, expected):
    assert str(_distribution(OverridesParser.create().parse_override(f"x={sweep}"))) == expected


@pytest.mark.parametrize("settings", [{"trials": 0}, {"trials": 3, "at_once": 0}])
def test_counts_below_one_are_refused(settings):
    with pytest.raises(ValueError, match="count jobs and must be at least 1, got"):
        TpeSweeper(PARAMS, **settings)
