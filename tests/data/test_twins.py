"""Hand-worked examples, and every pair gone through with datasketch's own estimate."""

import numpy as np
import pytest
from datasketch import MinHash
from hypothesis import given, settings
from hypothesis import strategies as st

from crossrank.data import twins as module
from crossrank.data.near_equal import NearEqual, SignedTexts, normalised
from crossrank.data.twins import CONTAINS, EQUAL, NEAR, MinedPool, twins, write_twins
from crossrank.errors import DataError

SAME = EQUAL | NEAR | CONTAINS
LONG = " ".join(f"w{i}" for i in range(100))


def pool_of(candidates, positives):
    counts = [len(ids) for ids in positives]
    flat = [document for ids in positives for document in ids]
    ids = np.asarray(candidates, np.int32).reshape(len(positives), -1)
    return MinedPool(ids, np.cumsum([0, *counts]), np.asarray(flat, np.int32))


def found(pool, texts, near=None):
    return np.concatenate(list(twins(pool, SignedTexts.of(texts, near or NearEqual()))))


@pytest.mark.parametrize(
    ("positive", "candidate", "flag"),
    [
        ("Größe der Straße", "GRÖSSE, DER STRASSE!", SAME),
        ("Größe der Straße", "Die größe der Straße ist bekannt", CONTAINS),
        ("Größe der Straße", "Die Übergröße der Straße", 0),  # whole words
        ("我喜欢苹果", "他说:我喜欢苹果,也喜欢梨", CONTAINS),
        ("我喜欢苹果", "我喜欢。苹果!", SAME),
        ("苹果", "我喜欢苹果", CONTAINS),
        ("yes", "Yes.", SAME),
        ("yes", "No, but yes to the other", CONTAINS),
        ("yes", "yesterday", 0),
        ("two words", "these TWO-words here", CONTAINS),
        ("two words", "two other words", 0),
        ("?!", "...", 0),
        ("?!", "?!?!", 0),
        ("", "some words", 0),
        ("some words", "", 0),
        ("a b c d e f", "b c d", 0),  # the positive is longer
        ("b c d", "a b c d e f", CONTAINS),
        ("b c d", "b c x d b c", 0),
        ("a b a b a b a b", "a b a b a b", NEAR),  # the same n-grams, fewer words
        (LONG, LONG.replace("w99", "x"), NEAR),  # 97 of 99 n-grams are shared
        (LONG, LONG + " and more", NEAR | CONTAINS),
        (LONG, LONG.replace("w50", "x").replace("w20", "x").replace("w80", "x"), 0),  # 89 of 107
        (LONG, f"{LONG.replace('w', 'y')} {LONG}", CONTAINS),
    ],
)
def test_what_a_candidate_is_to_a_positive(positive, candidate, flag):
    texts = ["a text of its own", positive, candidate]
    assert found(pool_of([[0, 2, -1]], [[1]]), texts).tolist() == [[0, flag, 0]]


def test_positives_are_no_twins_of_each_other_and_every_one_counts():
    texts = ["yes", "Yes!", "oh yes", "NO", "no", "maybe"]
    pool = pool_of([[0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5]], [[0, 1, 3], [], [2]])
    assert found(pool, texts).tolist() == [[0, 0, CONTAINS, 0, SAME, 0], [0] * 6, [0] * 6]


@st.composite
def mined(draw):
    words = st.lists(st.sampled_from(["a", "b", "C!", "d"]), max_size=9)
    texts = draw(st.lists(words.map(" ".join), min_size=1, max_size=12))
    depth, questions = draw(st.integers(0, 5)), draw(st.integers(1, 6))
    ids = st.integers(-1, len(texts) - 1)
    candidates = draw(st.lists(st.lists(ids, min_size=depth, max_size=depth), min_size=questions, max_size=questions))
    own = st.lists(st.integers(0, len(texts) - 1), max_size=3, unique=True)
    return texts, candidates, draw(st.lists(own, min_size=questions, max_size=questions))


def slowly(texts, candidates, positives, near):
    forms = [normalised(text) for text in texts]
    sketches = [MinHash(hashvalues=row, scheme="affine32") for row in near.sign(forms)]

    def one(candidate, own):
        if candidate < 0 or candidate in own:
            return 0
        flag, words = 0, forms[candidate].split()
        for positive in own:
            wanted = forms[positive].split()
            if wanted:
                runs = [words[i : i + len(wanted)] for i in range(len(words))]
                flag |= EQUAL * (wanted == words) | CONTAINS * (wanted in runs)
                flag |= NEAR * (sketches[candidate].jaccard(sketches[positive]) >= near.threshold)
        return flag

    return [[one(candidate, own) for candidate in row] for row, own in zip(candidates, positives, strict=True)]


@settings(deadline=None, max_examples=200)
@given(mined(), st.sampled_from([NearEqual(), NearEqual(1, 16, 0.6), NearEqual(2, 64, 0.75), NearEqual(5, 128, 1.0)]))
def test_every_flag_is_that_of_going_through_all_pairs(given_pool, near):
    texts, candidates, positives = given_pool
    assert found(pool_of(candidates, positives), texts, near).tolist() == slowly(*given_pool, near)


@pytest.mark.parametrize("compared", [1, 7, 10_000])
def test_blocks_change_nothing(monkeypatch, compared):
    draws = np.random.default_rng(0)
    texts = [" ".join(draws.choice(list("abc"), size)) for size in draws.integers(1, 8, 30)]
    positives = [draws.choice(30, size, replace=False).tolist() for size in draws.integers(0, 9, 20)]
    pool = pool_of(draws.integers(-1, 30, (20, 6)), positives)
    whole = found(pool, texts)
    monkeypatch.setattr(module, "QUESTIONS_PER_BLOCK", 3)
    monkeypatch.setattr(module, "COMPARED_AT_ONCE", compared)
    monkeypatch.setattr(module, "TEXTS_KEPT", 2)
    blocks = list(twins(pool, SignedTexts.of(texts, NearEqual())))
    assert [len(block) for block in blocks] == [3, 3, 3, 3, 3, 3, 2]
    assert np.concatenate(blocks).tolist() == whole.tolist()
    assert set(whole.ravel().tolist()) >= {0, CONTAINS, SAME}


def test_twins_are_written_and_counted(tmp_path, caplog):
    texts = ["the answer is yes", "The answer is: yes", "so the answer is yes now", "something else", LONG, LONG + " x"]
    pool = pool_of([[0, 1, 2, 3], [5, 3, 4, -1]], [[0], [4]])
    write_twins(pool, SignedTexts.of(texts, NearEqual()), tmp_path)
    written = np.load(tmp_path / "twins.npy")
    assert written.dtype == np.uint8
    assert written.tolist() == [[0, SAME, CONTAINS, 0], [NEAR | CONTAINS, 0, 0, 0]]
    told = "of 8 candidates 1 equal a positive of their question, 2 are near-equal to one, 3 contain one"
    assert told in caplog.text


@pytest.mark.parametrize(("candidates", "positives"), [([[3]], [[0]]), ([[0]], [[3]]), ([[-2]], [[0]])])
def test_a_pool_of_other_documents_is_refused(candidates, positives):
    with pytest.raises(DataError, match=r"ids from -?\d to -?\d, and there are 3 documents; it was mined from others"):
        found(pool_of(candidates, positives), ["a", "b", "c"])
