"""Planted leaks, every pair gone through with exact similarities, and the real sets."""

import gzip
import json
import random
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from conftest import SHARED, needs_shared_data
from markdown_it import MarkdownIt
from similar_texts import exact, families

from crossrank.audit import leaks as module
from crossrank.audit.leaks import TOUCHED_COLUMNS, find_leaks
from crossrank.data.near_equal import NearEqual, normalised
from crossrank.errors import DataError
from crossrank.evaluation.collection import Collection
from crossrank.evaluation.reranking import RerankingTask

LONG = " ".join(f"w{i}" for i in range(60))
DOCUMENTS = {"d1": "The moon moves the sea.", "d2": LONG, "d3": "Iron rusts!", "d4": "Bread | rises", "d5": "Salt"}


def task(name="a", **changes):
    given = {
        "queries": {"q1": "Why are there tides?", "q2": "what is the capital of france", "q3": "who bakes"},
        "documents": DOCUMENTS,
        "candidates": {"q1": ["d1", "d2", "d3"], "q2": ["d3", "d2"], "q3": ["d4", "d5"]},
        "qrels": {"q1": {"d1": 1, "d2": 2, "d4": 1}, "q2": {"d3": 1}, "q3": {"d4": 1, "d5": 0}},
    }
    return RerankingTask(name, **(given | changes))


QUESTIONS = ["something else", "what is the capital city of france", "WHY are there tides", "Why are there tides?", "?"]
ANSWERS = ["nothing here", "!?", LONG.replace("w59", "x"), "the moon, moves the sea", "salt"]


def test_planted_leaks_are_found_by_kind_and_match():
    found = find_leaks(QUESTIONS, ANSWERS, [task()])
    assert list(found.touched) == TOUCHED_COLUMNS
    assert found.touched.to_numpy().tolist() == [
        ["a", "q1", "question", "equal", 1.0, 1, 1, "", "Why are there tides?", 2, "WHY are there tides"],
        ["a", "q1", "relevant", "equal", 1.0, 2, 3, "d1", DOCUMENTS["d1"], 3, "the moon, moves the sea"],
        ["a", "q3", "other", "equal", 1.0, 1, 1, "d5", "Salt", 4, "salt"],
        ["a", "q2", "other", "near", 57 / 59, 1, 1, "d2", LONG, 2, ANSWERS[2]],
        ["a", "q2", "question", "near", 6 / 7, 1, 1, "", "what is the capital of france", 1, QUESTIONS[1]],
    ]
    assert found.keys == {("a", "q1"), ("a", "q2")}
    assert found.training_rows.tolist() == [1, 2, 3]
    counts = {"question_equal": 1, "question_near": 1, "relevant_equal": 1, "relevant_near": 0, "other_equal": 1,
              "other_near": 1, "touched": 2}  # fmt: skip
    assert found.table().to_dict("records") == [{"dataset": "a", "queries": 3} | counts]


def test_every_dataset_is_counted_for_itself():
    other = task(
        "b", queries={"q9": "what is the capital of france"}, candidates={"q9": ["d3"]}, qrels={"q9": {"d3": 1}}
    )
    found = find_leaks(QUESTIONS, ANSWERS, [task(), other])
    assert found.keys == {("a", "q1"), ("a", "q2"), ("b", "q9")}
    assert found.table()[["dataset", "queries", "question_near", "touched"]].to_numpy().tolist() == [
        ["a", 3, 1, 2], ["b", 1, 1, 1]
    ]  # fmt: skip


def test_nothing_touched():
    found = find_leaks(["a question"], ["an answer"], [task()])
    assert found.touched.empty
    assert found.keys == set()
    assert found.training_rows.tolist() == []
    assert found.table()["touched"].tolist() == [0]
    assert [section.title for section in found.sections()] == ["Leaks"]
    assert find_leaks([], [], [task()]).touched.empty


def test_a_document_is_relevant_from_the_tasks_grade_on():
    found = find_leaks(["x"], ["the moon moves the sea"], [task(relevant_from=2)])
    assert found.touched[["query_id", "kind"]].to_numpy().tolist() == [["q1", "other"]]
    assert found.keys == set()


def test_a_relevant_document_without_text_cannot_be_looked_for():
    documents = {key: text for key, text in DOCUMENTS.items() if key != "d2"}
    without = task(documents=documents, candidates={"q1": ["d1"], "q2": ["d3"], "q3": ["d4"]}, protocol="trec")
    found = find_leaks(["x"], ["the moon moves the sea"], [without])
    assert found.touched[["query_id", "texts", "of"]].to_numpy().tolist() == [["q1", 1, 2]]


def test_thresholds_decide():
    asked, answers = (
        ["what is the capital city of france"],
        [LONG.replace("w30", "x")],
    )  # 6 of 7 words, 55 of 61 trigrams
    for threshold, keys in ((0.85, {("a", "q2")}), (0.87, set())):
        near = NearEqual(words=1, threshold=threshold)
        assert find_leaks(asked, ["-"], [task()], near_questions=near).keys == keys
    for threshold, keys in ((0.9, {("a", "q1")}), (0.91, set())):
        assert find_leaks(["-"], answers, [task()], near_answers=NearEqual(threshold=threshold)).keys == keys


class Streamed(Sequence):
    """Gives out slices of a few texts and nothing else."""

    def __init__(self, texts):
        self.texts = texts

    def __len__(self):
        return len(self.texts)

    def __getitem__(self, some):
        assert some.stop - some.start <= 7
        return self.texts[some]


@pytest.mark.parametrize(("words", "threshold"), [(3, 0.75), (1, 0.8), (2, 0.55)])
def test_every_pair_well_above_the_threshold_is_found_and_none_below(monkeypatch, words, threshold):
    monkeypatch.setattr(module, "TEXTS_PER_BLOCK", 7)
    texts = families(12, 40, (0, 0, 1, 2, 3, 4, 6, 9))
    random.Random(0).shuffle(texts)
    documents, answers = {f"d{i}": text.upper() for i, text in enumerate(texts[:40])}, texts[40:]
    watched = RerankingTask(
        "w",
        {d: f"about {d}" for d in documents},
        documents,
        {d: [d] for d in documents},
        {d: {d: 1} for d in documents},
    )
    near = NearEqual(words, threshold=threshold)
    found = find_leaks(Streamed(["-"] * len(answers)), Streamed(answers), [watched], near_answers=near)
    best = {}
    for document, text in documents.items():
        similar = [exact(normalised(text), normalised(answer), words) for answer in answers]
        equal = [normalised(text) == normalised(answer) for answer in answers]
        order = sorted(range(len(answers)), key=lambda i: (not equal[i], -similar[i], i))
        best[document] = (similar[order[0]], order[0], equal[order[0]])
    shown = {row.query_id: row for row in found.touched.itertuples()}
    assert {d for d, (value, *_) in best.items() if value >= threshold + 0.05} <= shown.keys()
    assert shown.keys() <= {d for d, (value, *_) in best.items() if value >= threshold}
    for document, row in shown.items():
        assert (row.similarity, row.training_row, row.match == "equal") == best[document]
    assert {row.match for row in shown.values()} == {"equal", "near"}
    assert len(shown) < len(documents)


def test_files_hold_what_was_found(tmp_path):
    found = find_leaks(QUESTIONS, ANSWERS, [task()])
    found.write(tmp_path / "leaks")
    assert sorted(file.name for file in (tmp_path / "leaks").iterdir()) == [
        "leaks.csv", "leaks.parquet", "queries.json", "training_rows.npy"
    ]  # fmt: skip
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "leaks" / "leaks.parquet"), found.touched)
    csv = pd.read_csv(tmp_path / "leaks" / "leaks.csv", keep_default_na=False)
    assert csv["training_text"].tolist() == found.touched["training_text"].tolist()
    assert np.load(tmp_path / "leaks" / "training_rows.npy").tolist() == [1, 2, 3]
    find_leaks(["x"], ["y"], [task()]).write(tmp_path / "leaks")
    assert list(pd.read_parquet(tmp_path / "leaks" / "leaks.parquet")) == TOUCHED_COLUMNS


def test_the_page_has_the_table_and_the_texts_as_they_are():
    found = find_leaks(["x", "y"], ["bread | rises", "The moon moves the sea."], [task()])
    page = "\n\n".join(section.as_markdown(2) for section in found.sections())
    tokens = MarkdownIt("commonmark").enable("table").parse(page)
    cells = [
        "".join(child.content for child in tokens[i + 1].children) for i, t in enumerate(tokens) if t.type == "td_open"
    ]
    assert cells[:9] == ["a", "3", "0", "0", "2", "0", "0", "0", "2"]
    assert cells[9:17] == ["a", "q1", "relevant", "equal (1.00)", "2 of 3", DOCUMENTS["d1"], "1", DOCUMENTS["d1"]]
    assert cells[22:25] == ["Bread | rises", "0", "bread | rises"]
    assert "2 of 2, equal and most alike first." in page
    assert "1 of 2, equal" in found.sections(examples=1)[1].note


def test_pairs_that_do_not_fit_together_and_datasets_of_one_name_are_refused():
    with pytest.raises(DataError, match="2 training questions and 1 answers"):
        find_leaks(["a", "b"], ["c"], [task()])
    with pytest.raises(DataError, match=r"whose names must differ, got \['a', 'a'\]"):
        find_leaks(["a"], ["c"], [task(), task()])


def read(folder, name):
    with gzip.open(SHARED / folder / f"{name}.jsonl.gz", "rt", encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


@needs_shared_data
def test_of_a_real_training_set_and_a_real_collection_only_what_was_planted_is_touched():
    """nq-pairs promises to share no query and no relevant document; its answers are other candidates of every query."""
    pairs = read("nq-pairs", "pairs")
    questions, answers = ([row[column] for row in pairs] for column in ("question", "answer"))
    tasks = Collection([str(SHARED / "nano-nq")]).tasks
    query, other = list(tasks[0].queries)[:2]
    (relevant,) = tasks[0].qrels[other]
    paragraph = tasks[0].documents[relevant].split()
    paragraph[len(paragraph) // 2] = "planted"
    planted = [tasks[0].queries[query].upper() + "?", "why"], ["because", " ".join(paragraph)]
    found = find_leaks(questions + planted[0], answers + planted[1], tasks)
    assert found.table().to_numpy().tolist() == [["nano-nq", 50, 1, 0, 0, 1, 50, 0, 2]]
    touched = found.touched[found.touched["kind"] != "other"]
    assert touched[["query_id", "kind", "match", "training_row"]].to_numpy().tolist() == [
        [query, "question", "equal", len(pairs)], [other, "relevant", "near", len(pairs) + 1]
    ]  # fmt: skip
