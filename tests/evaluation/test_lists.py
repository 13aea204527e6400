"""Reranking lists against CrossEncoderRerankingEvaluator on the very same samples."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from sentence_transformers.cross_encoder.evaluation import CrossEncoderRerankingEvaluator

from crossrank.errors import DataError
from crossrank.evaluation.lists import RerankingLists


def score(pairs):
    return np.asarray([sum(map(ord, question + text)) * 7919 % 101 for question, text in pairs], np.float32)


MODEL = SimpleNamespace(
    predict=lambda pairs, **options: score([tuple(pair) for pair in pairs]),
    model_card_data=SimpleNamespace(set_evaluation_metrics=lambda *args: None),
)


def samples(kind, seed=0):
    draws = np.random.default_rng(seed)
    rows = []
    for q in range(8):
        texts = [f"text {i}" for i in draws.permutation(60)[:14]]
        positives = texts[: int(draws.integers(1, 4))]
        others = texts[3:] if kind == "negative" else list(draws.permutation([*positives[:1], *texts[3:]]))
        rows.append({"query": f"question {q}", "positive": positives if q else positives[0], kind: others})
    return rows


def write(file, rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


@pytest.mark.parametrize(("kind", "always"), [("documents", True), ("documents", False), ("negative", True)])
def test_equals_sentence_transformers(tmp_path, kind, always):
    rows = samples(kind)
    given = [
        row | {"positive": [row["positive"]] if isinstance(row["positive"], str) else row["positive"]} for row in rows
    ]
    expected = CrossEncoderRerankingEvaluator(given, always_rerank_positives=always, write_csv=False)(MODEL)
    evaluation = RerankingLists([write(tmp_path / "mine.jsonl", rows)], always_rerank_positives=always)(score)
    means = evaluation.means().loc["mine"]
    for key, value in expected.items():
        column = "base_value" if key.startswith("base_") else "value"
        assert means.loc[key.removeprefix("base_"), column] == pytest.approx(value, abs=1e-12)
    assert means["base_value"].isna().all() == (kind == "negative")  # negatives have no order to compare with
    assert means["value"].notna().all()


def test_a_question_without_positives_counts_0_as_it_does_there(tmp_path):
    rows = [*samples("documents"), {"query": "none", "positive": [], "documents": ["text 1", "text 2"]}]
    expected = CrossEncoderRerankingEvaluator(
        [
            row | {"positive": [row["positive"]] if isinstance(row["positive"], str) else row["positive"]}
            for row in rows
        ],
        write_csv=False,
    )(MODEL)
    rows = RerankingLists([write(tmp_path / "mine.jsonl", rows)])(score).rows
    assert rows[rows["metric"] == "map"]["value"].mean() == pytest.approx(expected["map"], abs=1e-12)
    assert rows[rows["query_id"] == "mine-9"]["value"].eq(0).all()


def test_one_document_is_defined(tmp_path):
    """sentence-transformers raises here."""
    file = write(tmp_path / "mine.jsonl", [{"query": "q", "positive": "a", "documents": ["a"]}])
    assert RerankingLists([file])(score).rows["value"].eq(1).all()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"query": "q", "positive": "a"}, "'positive' and one of 'documents' and 'negative' are wanted"),
        ({"query": "q", "documents": ["a"]}, "'positive' and one of"),
        ({"query": "q", "positive": "a", "documents": ["a"], "negative": ["b"]}, "'positive' and one of"),
        ({"query": " ", "positive": "a", "documents": ["a"]}, "'query' must be a text, got ' '"),
        (
            {"query": "q", "positive": [3], "documents": ["a"]},
            r"'positive' must be a text or a list of texts, got \[3\]",
        ),
        ({"query": "q", "positive": "a", "negative": ["b"]}, "some rows have 'documents' and some 'negative'"),
    ],
)
def test_bad_rows_are_named(tmp_path, row, message):
    file = write(tmp_path / "mine.jsonl", [{"query": "q", "positive": "a", "documents": ["a", "b"]}, row])
    with pytest.raises(DataError, match=message) as caught:
        RerankingLists([file]).prepare()
    assert file in str(caught.value)


@pytest.mark.parametrize(
    "options", [{"paths": []}, {"paths": ["a.jsonl"], "at_k": 0}, {"paths": ["x/a.csv", "y/a.csv"]}]
)
def test_impossible_settings_are_refused(options):
    with pytest.raises(ValueError, match="must"):
        RerankingLists(**options)
