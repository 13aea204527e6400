import json
import shlex

import pandas as pd
import pytest

from crossrank.analysis.sweeps import SweepFolder, short
from crossrank.errors import DataError

RESULT = {"best_step": 4, "seconds": 60.0, "monitor": "eval/dev/dev/ndcg@10"}


def make(folder, name, lr, seed=12, asked=0.0, **files):
    job = folder / name
    job.mkdir()
    words = ["experiment=smoke", "sweep=lr", f"optimizer.lr={lr}", f"seed={seed}", "hydra.sweeper.trials=3", "a.b=x y"]
    (job / "job.json").write_text(json.dumps({"asked": asked}))
    (job / "origin.json").write_text(json.dumps({"overrides": words}))
    for name_of, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (job / f"{name_of}.{'yaml' if name_of == 'config' else 'json'}").write_text(text)
    if "result" in files:
        (job / "metrics.jsonl").write_text("")


def config(folder, name, lr, seed=12):
    place = folder / name
    return (
        f"run_dir: {place}\ncache_dir: {folder}\nseed: {seed}\noptimizer:\n  lr: {lr}\n  eps: 1\n"
        f"callbacks:\n  health:\n    run_dir: {place}\nlogger:\n  wandb:\n    name: {name}\n"
    )


@pytest.fixture
def sweep(tmp_path):
    make(tmp_path, "a", 0.1, config=config(tmp_path, "a", 0.1), result={**RESULT, "best_value": 0.5})
    make(tmp_path, "b", 0.2, config=config(tmp_path, "b", 0.2), result={**RESULT, "best_value": 0.75, "best_step": 8})
    make(
        tmp_path,
        "c",
        0.3,
        config=config(tmp_path, "c", 0.3),
        failure={"error": "the loss is nan\nat step 3"},
        asked=9.0,
    )
    make(tmp_path, "d", -1, failure={"error": "1 problem in the config"}, asked=5.0)
    make(tmp_path, "e", 0.5, config=config(tmp_path, "e", 0.5))
    make(
        tmp_path, "f", 0.6, config=config(tmp_path, "f", 0.6), result={**RESULT, "best_value": 0.9, "pruned_at": 2}
    )  # fmt: skip
    return SweepFolder(tmp_path)


def test_each_job_is_a_row_the_best_first_with_what_was_chosen(sweep):
    assert sweep.choices == ["optimizer.lr"]  # neither where it lies nor who was told of it
    rows = sweep.jobs.set_index("job")
    assert list(rows.index[:3]) == ["f", "b", "a"]
    states = {"a": "finished", "b": "finished", "c": "failed", "d": "failed", "e": "unfinished", "f": "pruned"}
    assert rows["state"].to_dict() == states
    assert rows["optimizer.lr"].to_dict() == {"a": 0.1, "b": 0.2, "c": 0.3, "d": -1, "e": 0.5, "f": 0.6}
    assert rows["value"].dropna().to_dict() == {"f": 0.9, "b": 0.75, "a": 0.5}
    assert rows.loc["b", ["best_step", "seconds"]].tolist() == [8, 60.0]
    assert rows.loc["c", "error"] == "the loss is nan at step 3"
    assert sweep.monitor == "eval/dev/dev/ndcg@10"


def test_the_best_is_one_that_was_trained_to_its_end(sweep):
    assert sweep.best == "b"
    assert set(sweep.runs) == {"a", "b", "f"}


def test_the_override_line_trains_the_job_by_itself(sweep):
    words = shlex.split(sweep.override_line("b"))
    assert words == ["experiment=smoke", "optimizer.lr=0.2", "seed=12", "a.b=x y"]
    with pytest.raises(DataError, match="no job 'x'; there are: a, b, c, d, e, f"):
        sweep.override_line("x")


@pytest.mark.parametrize(("value", "shown"), [
    (0.0001156649956684016, "0.0001157"), (2e-5, "2e-05"), (0.5, "0.5"), (12, "12"), ("margin", "margin"),
    (None, "null"), (float("nan"), "null"), (True, "True"), ([1, 2], "[1, 2]"),
])  # fmt: skip
def test_a_table_shows_the_first_digits_of_what_was_drawn(value, shown):
    assert short(value) == shown


def test_only_what_was_asked_for_now_counts_as_failed(sweep):
    assert sweep.failed() == {"c": "the loss is nan at step 3", "d": "1 problem in the config"}
    assert list(sweep.failed(since=6.0)) == ["c"]


def test_the_section_has_a_row_a_job(sweep):
    section = sweep.section()
    assert list(section.header[-1:]) == ["optimizer.lr"]
    assert [row[0] for row in section.rows] == sweep.jobs["job"].tolist()
    assert section.rows[1][1:] == ["finished", "0.7500", "8", "1.0", "0.2"]
    assert next(row for row in section.rows if row[0] == "c")[1:3] == ["failed: the loss is nan at step 3", "-"]


def test_a_choice_in_a_group_is_one_choice_whatever_follows_from_it(tmp_path):
    """Here the policies differ in two values; a job that does not say has what its config says."""
    for name, words in {"a": ["policy=hardest"], "b": ["policy=margin"], "c": ["policy=margin", "seed=3"]}.items():
        make(tmp_path, name, 0.1, config=config(tmp_path, name, 0.1, 3 if name == "c" else 12))
        (tmp_path / name / "origin.json").write_text(json.dumps({"overrides": words}))
    rows = SweepFolder(tmp_path).jobs.set_index("job")
    assert SweepFolder(tmp_path).choices == ["policy", "seed"]
    assert rows["policy"].to_dict() == {"a": "hardest", "b": "margin", "c": "margin"}
    assert rows["seed"].to_dict() == {"a": 12, "b": 12, "c": 3}


def test_jobs_that_differ_in_nothing_have_no_choices(tmp_path):
    make(tmp_path, "a", 0.1, config=config(tmp_path, "a", 0.1))
    sweep = SweepFolder(tmp_path)
    assert sweep.choices == []
    assert sweep.best is None
    assert sweep.monitor is None
    assert pd.isna(sweep.jobs["value"]).all()


def test_a_folder_without_jobs_is_refused(tmp_path):
    with pytest.raises(DataError, match="no job of a sweep lies there; give a sweep's folder"):
        SweepFolder(tmp_path)
