import sys

import numpy as np
import pandas as pd
import pytest
from made_runs import write_job, write_sweep

from crossrank.analysis.sweeps import SweepFolder
from crossrank.evaluation.significance import seed_variance
from crossrank.pages.sweep_study import Importance, as_numbers, importance, is_seed, seed_groups, told


class Table:
    """The part of a sweep that importance reads."""

    def __init__(self, jobs, choices):
        self.jobs, self.choices = jobs.assign(state="finished"), choices


def grid(value):
    jobs = [{"lr": lr, "kind": kind, "seed": seed} for lr in (1e-5, 1e-4, 1e-3) for kind in "ab" for seed in (1, 2)]
    return Table(pd.DataFrame([{**job, "value": value(**job)} for job in jobs]), ["lr", "kind", "seed"])


def test_what_alone_decides_explains_nearly_all():
    found = importance(grid(lambda lr, kind, seed: np.log10(lr) + 0.001 * seed))
    assert next(iter(found.shares)) == "lr"
    assert found.shares["lr"] > 0.95
    assert sum(found.shares.values()) == pytest.approx(1)
    found = importance(grid(lambda lr, kind, seed: float(kind == "a")))
    assert found.shares["kind"] > 0.95


def test_it_does_not_change_from_call_to_call():
    table = grid(lambda lr, kind, seed: np.log10(lr) * seed + (kind == "a"))
    assert importance(table) == importance(table)


def test_why_it_is_not_known_is_said(monkeypatch):
    few = Table(grid(lambda **_: 1.0).jobs.head(3), ["lr"])
    assert importance(few) == Importance({}, "Importance needs at least 4 finished jobs; there are 3.")
    assert "the same value" in importance(grid(lambda **_: 1.0)).missing
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert "optuna is missing" in importance(grid(lambda lr, kind, seed: lr)).missing


def test_jobs_that_differ_in_their_seed_only_are_one_group_with_the_interval_of_both(tmp_path):
    sweep = SweepFolder(write_sweep(tmp_path / "sweep"))
    groups = seed_groups(sweep)
    assert [sorted(group.jobs) for group in groups] == [["job11", "job12"], ["job01", "job02"]]
    best = groups[0]
    assert best.choices["optimizer.lr"] == "0.1"
    assert best.mean == pytest.approx(np.mean(sorted(sweep.jobs["value"].dropna())[-2:]))
    strata = []
    for dataset in ("one", "two"):
        values = []
        for job in best.jobs:
            run = sweep.runs[job]
            rows = run.evaluations[lambda t, step=run.result["best_step"]: t["step"] == step]
            rows = rows[(rows["dataset"] == dataset) & (rows["metric"] == "ndcg@10")]
            values.append(rows.sort_values("query_id")["value"].to_numpy())
        strata.append(np.stack(values))
    expected = seed_variance(strata)
    assert best.variance.seed_sd == pytest.approx(expected.seed_sd)
    assert best.variance.interval == pytest.approx(expected.interval)
    assert best.mean == pytest.approx(expected.mean)


def test_other_queries_are_no_repetition_and_one_seed_says_nothing(tmp_path):
    write_job(tmp_path, "a", {"optimizer.lr": 1.0, "seed": 1})
    write_job(tmp_path, "b", {"optimizer.lr": 1.0, "seed": 2}, datasets=("one", "three"))
    write_job(tmp_path, "c", {"optimizer.lr": 2.0, "seed": 1})
    groups = {tuple(sorted(group.jobs)): group for group in seed_groups(SweepFolder(tmp_path))}
    assert groups["a", "b"].variance is None
    assert "not evaluated on the same queries" in groups["a", "b"].missing
    assert groups["c",].missing == "one seed says nothing of another"


def test_without_a_choice_of_seeds_there_is_no_group(tmp_path):
    for name, rate in (("a", 1.0), ("b", 2.0)):
        write_job(tmp_path, name, {"optimizer.lr": rate})
    assert seed_groups(SweepFolder(tmp_path)) == []


def test_numbers_seeds_and_nulls_are_told_apart():
    assert as_numbers(pd.Series([1, 2.5])) == [1.0, 2.5]
    assert as_numbers(pd.Series([True, False])) is None
    assert as_numbers(pd.Series([1.0, None])) is None
    assert as_numbers(pd.Series(["1", "2"])) is None
    assert (is_seed("seed"), is_seed("policy.seed"), is_seed("seeds")) == (True, True, False)
    assert (told(None), told(float("nan")), told(0.5), told([1])) == ("null", "null", "0.5", "[1]")


def test_optuna_is_quiet_only_while_it_is_asked():
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    importance(grid(lambda lr, kind, seed: lr))
    assert optuna.logging.get_verbosity() == optuna.logging.WARNING
