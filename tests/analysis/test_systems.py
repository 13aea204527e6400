"""Folders and files as a person has them, against the values that were put into them."""

import gzip
import json

import ir_measures
import numpy as np
import pandas as pd
import pytest
from ir_measures import AP, RR, nDCG

from crossrank.analysis.systems import COLUMNS, Judgements, load_systems, short_names, trainings
from crossrank.errors import DataError


def rows(values, dataset="dev", metric="map", base=0.25):
    table = pd.DataFrame({"query_id": [f"q{i}" for i in range(len(values))], "value": values})
    return table.assign(dataset=dataset, metric=metric, base_value=base)


def evaluations(folder, steps):
    """`steps` maps a step to rows, or to rows by evaluator."""
    folder.mkdir(parents=True, exist_ok=True)
    for step, tables in steps.items():
        for evaluator, table in (tables if isinstance(tables, dict) else {"e": tables}).items():
            table.assign(step=step, evaluator=evaluator).to_parquet(folder / f"step={step:06d}-{evaluator}.parquet")
    return folder


def run_of(folder, steps, best_step=None, config=""):
    evaluations(folder / "evaluations", steps)
    (folder / "metrics.jsonl").touch()
    if config:
        (folder / "config.yaml").write_text(config)
    if best_step is not None:
        (folder / "result.json").write_text(json.dumps({"best_step": best_step}))
    return str(folder)


def values(system, training=0):
    return system.trainings[training]["value"].tolist()


@pytest.fixture
def other(tmp_path):
    return run_of(tmp_path / "other", {0: rows([0.9, 0.9], base=0.75)}, 0)


def test_of_a_run_the_best_step_counts(tmp_path, other):
    run = run_of(tmp_path / "run", {0: rows([0.0, 0.1]), 5: rows([0.5, 0.6]), 10: rows([0.2, 0.3])}, 5)
    found, _ = load_systems([run, other])
    assert values(found) == [0.5, 0.6]
    assert list(found.trainings[0]) == COLUMNS
    assert set(found.trainings[0]["evaluator"]) == {"e"}


def test_of_an_unfinished_run_the_last_step_that_was_evaluated_whole_counts(tmp_path, other, caplog):
    steps = {0: {"a": rows([0.0]), "b": rows([0.1], "x")}, 5: {"a": rows([0.5]), "b": rows([0.6], "x")}}
    run = run_of(tmp_path / "run", {**steps, 10: {"a": rows([0.7])}})
    found, _ = load_systems([run, other])
    assert values(found) == [0.5, 0.6]
    assert "has not finished; its last evaluated step, 5," in caplog.text


@pytest.mark.parametrize("inside", ["", "evaluations"])
def test_a_folder_of_evaluations(tmp_path, other, inside):
    """With the result.json of src.evaluate, which knows no best step."""
    evaluations(tmp_path / "model" / inside, {0: {"a": rows([0.5]), "b": rows([0.6], "x")}})
    (tmp_path / "model" / "result.json").write_text("{}")
    found, _ = load_systems([str(tmp_path / "model"), other])
    assert values(found) == [0.5, 0.6]
    assert found.trainings[0]["evaluator"].tolist() == ["a", "b"]


def test_of_several_steps_in_a_folder_the_last_counts_and_that_is_said(tmp_path, other, caplog):
    folder = evaluations(tmp_path / "e", {0: rows([0.5]), 100: rows([0.6]), 20: rows([0.7])})
    found, _ = load_systems([str(folder), other])
    assert values(found) == [0.6]
    assert "the last, 100, is taken" in caplog.text


def test_a_sweep_and_words_with_commas_are_one_system_of_several_trainings(tmp_path, other, caplog):
    runs = [run_of(tmp_path / "sweep" / str(i), {0: rows([i / 20])}, 0, f"lr: 1\nseed: {i}\n") for i in range(12)]
    (tmp_path / "sweep" / "multirun.yaml").touch()
    swept, listed, one = load_systems([str(tmp_path / "sweep"), ",".join(runs[:3]), other])
    assert [values(swept, i) for i in range(12)] == [[i / 20] for i in range(12)]  # 2 before 10
    assert [values(listed, i) for i in range(3)] == [[0.0], [0.05], [0.1]]
    assert len(one.trainings) == 1
    assert "differ in more" not in caplog.text


def test_a_sweep_over_something_else_than_seeds_is_told(tmp_path, other, caplog):
    for i in range(2):
        folder = tmp_path / "sweep" / str(i)
        run_of(
            folder,
            {0: rows([0.5])},
            0,
            f"run_dir: /x/{i}\noptimizer:\n  lr: {i}\nseed: {i}\ncallbacks:\n  dir: /x/{i}/a\n",
        )
    load_systems([str(tmp_path / "sweep"), other])
    assert "its 2 trainings differ in more than the seed: lr" in caplog.text


@pytest.mark.parametrize(("rates", "told"), [((1, 1), False), ((1, 2), True)])
def test_evaluations_are_repetitions_if_the_trainings_of_their_rerankers_are(tmp_path, other, caplog, rates, told):
    for i, rate in enumerate(rates):
        run = tmp_path / f"run{i}"
        run_of(run, {0: rows([0.5])}, 0, f"run_dir: {run}\noptimizer:\n  lr: {rate}\nseed: {i}\n")
        evaluation = f"reranker: {run / 'export'}\nrun_dir: {run / 'evaluation'}\n"
        run_of(run / "evaluation", {0: rows([0.5])}, 0, evaluation)
    load_systems([f"{tmp_path / 'run0' / 'evaluation'},{tmp_path / 'run1' / 'evaluation'}", other])
    assert ("differ in more than the seed: lr" in caplog.text) == told
    assert "reranker" not in caplog.text


def test_an_evaluation_may_lie_around_the_model_that_it_is_of(tmp_path, other, caplog):
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        run_of(folder, {0: rows([0.5])}, 0, f"reranker: {folder / 'export'}\nrun_dir: {folder}\n")
    load_systems([",".join(map(str, folders)), other])
    assert "differ in more" not in caplog.text


def test_a_path_with_a_comma_that_is_there_is_one(tmp_path):
    run = run_of(tmp_path / "a,b", {0: rows([0.5])}, 0)
    assert trainings(run) == [run]
    assert trainings("a, b") == ["a", "b"]


def test_the_first_stage_is_that_of_the_first_system_that_has_one(tmp_path, other):
    without = evaluations(tmp_path / "scores", {0: rows([0.1, 0.2], base=np.nan)})
    run = run_of(tmp_path / "run", {0: rows([0.5, 0.6], base=[0.25, 0.5])}, 0)
    found = load_systems(["first_stage", str(without), run, other])
    assert found[0].name == "first_stage"
    assert values(found[0]) == [0.25, 0.5]
    with pytest.raises(DataError, match="no other system has values of a first stage"):
        load_systems(["first_stage", str(without)])


QRELS = {"1": {"a": 2, "b": 1, "x": 1}, "2": {"c": 1}, "3": {"a": 3, "b": 0}, "4": {"e": 1}}
RUN = {"1": {"b": 3.0, "c": 2.5, "a": 2.5, "d": 0.1}, "2": {"a": 9.0, "c": -1.0}, "3": {"b": 2.0, "a": 1.0}}


def trec_files(tmp_path, suffix=".trec"):
    opened = gzip.open if suffix.endswith(".gz") else open
    with opened(tmp_path / f"bm25{suffix}", "wt") as file:
        for q, found in {**RUN, "9": {"a": 1.0}}.items():
            file.writelines(f"{q} Q0 {d} 0 {score} tag\n" for d, score in found.items())
    judged = (f"{q} 0 {d} {grade}\n" for q, grades in QRELS.items() for d, grade in grades.items())
    (tmp_path / "dl.v2.qrels").write_text("".join(judged))
    return str(tmp_path / f"bm25{suffix}"), tmp_path / "dl.v2.qrels"


@pytest.mark.parametrize("suffix", [".trec", ".run", ".txt.gz"])
@pytest.mark.parametrize("relevant_from", [1, 2])
def test_a_trec_run_has_the_values_of_ir_measures(tmp_path, other, suffix, relevant_from, caplog):
    """Query 4 was not answered and counts 0, query 9 was not judged."""
    file, qrels = trec_files(tmp_path, suffix)
    found, _ = load_systems([file, other], None, Judgements(qrels, 3, relevant_from))
    names = {AP(rel=relevant_from): "trec_map", RR(rel=relevant_from): "trec_mrr@3", nDCG @ 3: "trec_ndcg@3"}
    judged = [ir_measures.Qrel(q, d, grade) for q, grades in QRELS.items() for d, grade in grades.items()]
    ranked = [ir_measures.ScoredDoc(q, d, score) for q, scores in RUN.items() for d, score in scores.items()]
    expected = {(name, query): 0.0 for name in names.values() for query in QRELS}
    expected |= {(names[m.measure], m.query_id): m.value for m in ir_measures.iter_calc(list(names), judged, ranked)}
    table = found.trainings[0].set_index(["metric", "query_id"])["value"]
    assert table.to_dict() == pytest.approx(expected)
    assert set(found.trainings[0]["dataset"]) == {"dl.v2"}
    assert "lacks 1 of 4 judged queries" in caplog.text


def test_a_model_is_evaluated_by_the_hook_or_refused_with_what_to_type(tmp_path, other):
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "config.json").write_text("{}")
    model, asked = str(tmp_path / "export"), []
    with pytest.raises(
        DataError, match=r"is a model: say .*, or evaluate it first with python -m src\.evaluate reranker=.*export"
    ):
        load_systems([model, other])
    with pytest.raises(
        DataError, match=r"no such file or folder; if it is a model of the hub, say what to evaluate it on"
    ):
        load_systems(["org/model", other])

    def evaluate(word):
        asked.append(word)
        return rows([0.1, 0.2])

    found = load_systems([model, "org/model", other], evaluate=evaluate)
    assert asked == [model, "org/model"]
    assert [values(system) for system in found[:2]] == [[0.1, 0.2]] * 2


@pytest.mark.parametrize(("table", "message"), [
    (rows([0.1, np.nan]), "1 of 2 values are not finite"),
    (rows(["high", "0.5"]), "1 of 2 values are not finite"),
    (pd.concat([rows([0.1, 0.2]), rows([0.3])]), "map of the query 'q0' of dev stands there more than once"),
    (rows([0.1]).drop(columns="metric"), r"lacks the columns \['metric'\]"),
    (rows([]), "holds no query"),
])  # fmt: skip
def test_broken_values_are_refused(tmp_path, other, table, message):
    folder = evaluations(tmp_path / "broken", {0: table})
    with pytest.raises(DataError, match=f"broken: .*{message}"):
        load_systems([str(folder), other])


def test_what_holds_no_values_is_refused(tmp_path, other):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.md").write_text("x")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").touch()
    damaged = evaluations(tmp_path / "damaged", {0: rows([0.1])})
    (damaged / "step=000000-e.parquet").write_bytes(b"PAR1 and then nothing")
    wrong = run_of(tmp_path / "wrong", {0: rows([0.1])}, 7)
    broken = run_of(tmp_path / "broken", {0: rows([0.1])})
    (tmp_path / "broken" / "result.json").write_text("{")
    file, qrels = trec_files(tmp_path)
    (tmp_path / "none.qrels").write_text("77 0 a 1\n")
    cases = {
        str(tmp_path / "empty"): "a run, a folder of runs, of evaluations",
        "": "a run, a folder of runs, of evaluations",
        str(tmp_path / "notes.md"): "the name must end in",
        str(tmp_path / "run"): "no evaluation was written",
        str(damaged): "not a readable parquet file",
        wrong: "its best step is 7",
        broken: "gives no best_step",
        file: "give them as qrels=FILE",
    }
    for word, message in cases.items():
        with pytest.raises(DataError, match=message):
            load_systems([word, other], None, Judgements(qrels if word.endswith(".md") else None))
    with pytest.raises(DataError, match="no query is in both"):
        load_systems([file, other], None, Judgements(tmp_path / "none.qrels"))


def test_one_system_is_too_few_and_names_must_fit(other):
    with pytest.raises(DataError, match="at least two systems"):
        load_systems([other])
    for names in (["one"], ["same", "same"]):
        with pytest.raises(DataError, match="names must be 2 different ones"):
            load_systems([other, other], names)
    assert [system.name for system in load_systems([other, other], ["x", "y"])] == ["x", "y"]


@pytest.mark.parametrize(("words", "expected"), [
    (["runs/a/1", "runs/b/1"], ["a", "b"]),
    (["runs/a/1", "runs/a/2"], ["1", "2"]),
    (["runs/a/1", "runs/b/2"], ["a/1", "b/2"]),
    (["runs/a/1/", "first_stage"], ["1", "first_stage"]),
    (["runs/a", "runs/a/export"], ["a", "export"]),
    (["runs/a", "runs/a"], ["a", "a (2)"]),
    (["a", "a/a"], ["a", "a/a"]),
    (["runs/a/1,runs/a/2", "runs/b/1,runs/b/2"], ["a", "b"]),
    (["x/1,y/2", "z"], ["x/1,y/2", "z"]),
    (["x/first_stage", "x/b", "first_stage"], ["x/first_stage", "x/b", "first_stage"]),
])  # fmt: skip
def test_names_are_what_tells_paths_apart(words, expected):
    assert short_names(words) == expected
