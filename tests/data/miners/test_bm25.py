import math
from collections import Counter

import numpy as np
import pytest

from crossrank.data.miners import bm25
from crossrank.data.miners.bm25 import BM25Miner
from crossrank.errors import DataError

DOCUMENTS = ["cat dog cat", "dog", "river stone river river", "cat river", "moon", "dog moon stone iron bread glass"]
QUESTIONS = ["cat", "dog moon", "cat cat dog", "unheard", "", "river stone"]


def lucene(question: str, k1: float, b: float) -> list[float]:
    """Score every document by the textbook formula: idf * tf / (tf + k1 * (1 - b + b * length / mean length))."""
    words = [document.split() for document in DOCUMENTS]
    mean = sum(map(len, words)) / len(words)
    scores = []
    for document in words:
        score = 0.0
        for word in question.split():
            tf, df = Counter(document)[word], sum(word in other for other in words)
            if not tf:
                continue
            idf = math.log(1 + (len(words) - df + 0.5) / (df + 0.5))
            score += idf * tf / (tf + k1 * (1 - b + b * len(document) / mean))
        scores.append(score)
    return scores


def search(miner: BM25Miner, questions, documents, k: int):
    positives = [np.int32([i % len(documents)]) for i in range(len(questions))]
    blocks = list(miner.search(questions, documents, k, positives))
    ids, scores = (np.concatenate([block[part] for block in blocks]) for part in (0, 1))
    return ids, scores, np.concatenate([own for block in blocks for own in block.positive_scores])


@pytest.mark.parametrize(("k1", "b"), [(1.5, 0.75), (0.9, 0.4), (0.0, 0.0), (2.0, 1.0)])
def test_scores_are_those_of_the_bm25_formula_and_ties_stand_by_id(k1, b):
    ids, scores, own = search(BM25Miner(k1, b), QUESTIONS, DOCUMENTS, 8)
    for row, question in enumerate(QUESTIONS):
        wanted = lucene(question, k1, b)
        np.testing.assert_allclose(scores[row, :6], sorted(wanted, reverse=True), atol=1e-6)
        assert ids[row, :6].tolist() == sorted(range(6), key=lambda d: (-np.float32(round(wanted[d], 6)), d))
        assert own[row] == pytest.approx(wanted[row], abs=1e-6)
    assert (ids[:, 6:] == -1).all()


def test_words_are_stemmed_lowered_and_freed_of_stop_words():
    ids, scores, _ = search(BM25Miner(), ["Is THE Running of the cats?"], ["the is of", "he runs", "a Cat"], 3)
    assert sorted(ids[0, :2].tolist()) == [1, 2]
    assert scores[0, 2] == 0


def test_blocks_do_not_change_the_result(monkeypatch):
    whole = search(BM25Miner(), QUESTIONS, DOCUMENTS, 3)
    monkeypatch.setattr(bm25, "BLOCK", 4)
    for got, wanted in zip(search(BM25Miner(), QUESTIONS, DOCUMENTS, 3), whole, strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_a_document_without_a_word_scores_0_and_all_without_are_refused():
    ids, scores, _ = search(BM25Miner(), ["the cat", "who is it"], ["the", "...", "cats"], 2)
    assert ids.tolist() == [[2, 0], [0, 1]]
    assert (scores > 0).tolist() == [[True, False], [False, False]]
    with pytest.raises(DataError, match="none of the 2 documents holds a word"):
        search(BM25Miner(), ["cat"], ["the", "..."], 2)


def test_the_fingerprint_follows_the_settings():
    assert len({BM25Miner(k1, b).fingerprint() for k1, b in ((1.5, 0.75), (1.2, 0.75), (1.5, 0.4))}) == 3
    assert BM25Miner().assets() == ()


@pytest.mark.parametrize(("k1", "b"), [(-0.1, 0.5), (1, -0.1), (1, 1.1)])
def test_settings_outside_the_formula_are_refused(k1, b):
    with pytest.raises(ValueError, match="BM25 needs"):
        BM25Miner(k1, b)
