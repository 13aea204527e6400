"""Against exact Jaccard similarities, datasketch itself, and graphs gone through pair by pair."""

import random
import re
import unicodedata
from itertools import combinations
from zlib import crc32

import numpy as np
import pytest
from datasketch import MinHash
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from similar_texts import VOCABULARY, exact, families

from crossrank.data import near_equal
from crossrank.data.cache import cached
from crossrank.data.near_equal import NearEqual, NearIndex, SignedTexts, clusters, normalised, write_signatures
from crossrank.errors import DataError

SENTENCES = st.lists(st.sampled_from("abcdef"), max_size=30).map(" ".join)


def components(size, pairs):
    rows, columns = np.asarray(pairs, int).reshape(-1, 2).T
    _, labels = connected_components(coo_array((np.ones(len(rows)), (rows, columns)), (size, size)), directed=False)
    groups = [np.flatnonzero(labels == label).tolist() for label in range(labels.max() + 1)]
    return sorted((group for group in groups if len(group) > 1), key=lambda group: (-len(group), group[0]))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Größe, STRASSE & Maße!", "grösse strasse masse"),
        ("Gro\u0308ße", "grösse"),
        ("  What's\tnew?\n", "what s new"),
        ("snake_case (v2.0)", "snake case v2 0"),
        ("ﬁne ½ x² Ⅳ", "fine 1 2 x2 iv"),
        ("我喜欢苹果。", "我 喜 欢 苹 果"),
        ("GPUで速い", "gpu で 速 い"),
        ("ｶﾞ", "ガ"),
        ("한국어 문장", "한국어 문장"),
        ("कि", "कि"),
        ("in\u00adfor\u200bmation", "information"),
        ("1\ufe0f\u20e3 \u2764\ufe0f", "1"),
        ("ΣΊΣΥΦΟΣ", "σίσυφοσ"),
        ("?!… — 。", ""),
        ("", ""),
    ],
)
def test_normal_forms(text, words):
    assert normalised(text) == words


def test_vowel_signs_tell_words_apart():
    assert normalised("कि") != normalised("की")


@given(st.text(st.characters(codec="ascii")))
def test_the_normal_form_of_ascii_is_its_lower_case_letters_and_digits(text):
    assert normalised(text) == " ".join(re.findall("[a-z0-9]+", text.lower()))


@given(st.text(st.characters(max_codepoint=0x52F, exclude_categories=["Cf", "Mn", "Mc", "Me", "Cs"])))
def test_the_normal_form_of_european_texts_is_their_folded_letters_and_digits(text):
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    marks = "".join(letter for letter in folded if unicodedata.category(letter) in ("Mn", "Mc"))
    assert normalised(text) == " ".join(re.findall(rf"(?:[^\W_]|[{re.escape(marks) or 'a'}])+", folded))


@given(st.text())
def test_a_normal_form_is_of_words_with_one_space_between_them(text):
    form = normalised(text)
    assert form == " ".join(form.split())
    assert all(unicodedata.category(letter)[0] in "LNM" for letter in form if letter != " ")
    assert normalised(f"({text}!)") == form


@settings(deadline=None)
@given(SENTENCES, SENTENCES, st.integers(1, 4))
def test_signatures_estimate_the_exact_similarity_and_never_err_at_0_and_1(a, b, words):
    near = NearEqual(words)
    ours, theirs = near.sign([a, b])
    similarity = exact(a, b, words)
    assert near.jaccard(a, b) == similarity
    if a and b:  # two empty signatures are alike, which is why texts without words are left out everywhere
        estimate = (ours == theirs).mean()
        assert estimate == pytest.approx(similarity, abs=0 if similarity in (0, 1) else 0.25)


def test_the_error_of_the_estimate_is_as_large_as_stated():
    near = NearEqual(1)
    errors = []
    for seed in range(100):
        words = random.Random(seed).sample(VOCABULARY, 100)
        a, b = " ".join(words[:95]), " ".join(words[5:])  # 90 of 100 in common
        errors.append(np.mean(np.equal(*near.sign([a, b]))) - 0.9)
    assert abs(np.mean(errors)) < 0.01
    assert np.std(errors) == pytest.approx(np.sqrt(0.9 * 0.1 / 128), rel=0.25)


def test_a_signature_is_datasketchs_own():
    text = "the quick brown fox jumps over the lazy dog"
    grams = [b"the quick brown", b"quick brown fox", b"brown fox jumps", b"fox jumps over", b"jumps over the",
             b"over the lazy", b"the lazy dog"]  # fmt: skip
    assert NearEqual().grams(text) == grams
    reference = MinHash.bulk([grams, [b"two words"], []], num_perm=64, hashfunc=crc32)
    signatures = NearEqual(permutations=64).sign([text, "two words", ""])
    assert signatures.tolist() == [sketch.hashvalues.tolist() for sketch in reference]


def test_a_signature_is_the_same_on_every_machine():
    """If this fails, cached signatures are of no use any more and the fingerprint has to say so."""
    signature = NearEqual().sign(["the cat sat on the mat"])[0]
    assert signature[:4].tolist() == [
        1698063001,
        696505832,
        2293359952,
        1282114915,
    ]
    assert NearEqual().signature_fingerprint == "b6e10c5a1d7bed61"
    assert NearEqual(threshold=0.8).signature_fingerprint == NearEqual().signature_fingerprint
    assert len({NearEqual(w, p).signature_fingerprint for w in (1, 3) for p in (64, 128)}) == 4


def test_a_long_text_is_signed_in_parts(monkeypatch):
    text = " ".join(VOCABULARY)
    whole = NearEqual().sign([text])
    monkeypatch.setattr(near_equal, "GRAMS_AT_ONCE", 7)
    assert NearEqual().sign([text]).tolist() == whole.tolist()


@pytest.mark.parametrize("count", [0, 1, 3, 7])
def test_signatures_are_written_in_blocks_and_mapped(tmp_path, monkeypatch, count):
    texts, near = [f"Text NUMBER {i}, of some" for i in range(count)], NearEqual()
    monkeypatch.setattr(near_equal, "TEXTS_PER_BLOCK", 3)
    folder = cached(tmp_path / "s", lambda to: write_signatures(texts, near, to))
    signed = SignedTexts.open(folder, texts, near)
    assert isinstance(signed.signatures, np.memmap)
    assert signed.signatures.tolist() == near.sign([f"text number {i} of some" for i in range(count)]).tolist()
    assert signed.signatures.tolist() == SignedTexts.of(texts, near).signatures.tolist()


def test_signatures_of_other_texts_or_settings_are_refused(tmp_path):
    write_signatures(["a", "b"], NearEqual(), tmp_path)
    for texts, near in ((["a"], NearEqual()), (["a", "b"], NearEqual(permutations=64))):
        with pytest.raises(DataError, match=r"uint32 of shape \(\d, \d+\).* got uint32 of \(2, 128\)"):
            SignedTexts.open(tmp_path, texts, near)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"words": 0}, "words counts the words of an n-gram and must be at least 1, got 0"),
        ({"permutations": 15}, "permutations must lie from 16 to 4096, got 15"),
        ({"permutations": 5000}, "permutations must lie from 16 to 4096, got 5000"),
        ({"threshold": 0.5}, "threshold is a similarity above 0.5 and at most 1, got 0.5"),
        ({"threshold": 1.1}, "threshold is a similarity above 0.5 and at most 1, got 1.1"),
        ({"threshold": float("nan")}, "threshold is a similarity above 0.5"),
    ],
)
def test_settings_out_of_range_are_refused(options, told):
    with pytest.raises(ValueError, match=told):
        NearEqual(**options)


@pytest.mark.parametrize(("threshold", "most"), [(0.9, 12), (1.0, 0), (0.75, 32), (0.51, 62), (116 / 128, 12)])
def test_how_many_minima_near_equal_texts_may_differ_on(threshold, most):
    assert NearEqual(threshold=threshold).disagreements == most


@pytest.mark.parametrize("permutations", [16, 127, 128])
@pytest.mark.parametrize("threshold", [0.51, 0.75, 0.9, 1.0])
def test_the_index_misses_no_near_equal_signature(threshold, permutations):
    near = NearEqual(2, permutations, threshold)
    forms = [*families(12, 40, (0, 1, 2, 4, 8)), "", "alone"]
    signatures = near.sign(forms)
    index = NearIndex(signatures, near)
    sketches = [MinHash(hashvalues=row, scheme="affine32") for row in signatures]
    for text, sketch in enumerate(sketches[:-2]):
        similar = {other: sketch.jaccard(sketches[other]) for other in range(len(forms) - 2)}
        wanted = {other: value for other, value in similar.items() if value >= threshold}
        assert index.search(signatures[text]) == wanted
    assert len(forms) - 2 not in index
    assert index.search(signatures[-2]) == {}
    assert index.search(signatures[-1]) == {len(forms) - 1: 1.0}


def test_one_signature_is_near_to_those_that_differ_on_few_minima_and_to_none_without_words():
    near = NearEqual()
    (one, wordless) = near.sign(["the words of one text", ""])
    others = np.stack([one, one, one, wordless])
    others[1, : near.disagreements] += 1
    others[2, : near.disagreements + 1] += 1
    assert near.near(one, others).tolist() == [True, True, False, False]
    assert not near.near(wordless, others).any()


def test_a_text_that_was_removed_is_not_found():
    near = NearEqual()
    signatures = near.sign(["a b c d", "a b c d"])
    index = NearIndex(signatures, near)
    index.remove(0)
    assert index.search(signatures[0]) == {1: 1.0}


def test_clusters_are_the_connected_components_of_the_exact_graph():
    """One word in a hundred differs, or every second: exact similarities far from the threshold of 0.75."""
    texts = [*families(15, 100, (0, 1, 1, 50)), "Alone!", "ALONE", "?", "!", ""]
    texts += [texts[4].upper().replace(" ", " - "), texts[4]]
    forms = [normalised(text) for text in texts]
    similar = {pair: exact(*(forms[i] for i in pair)) for pair in combinations(range(len(texts)), 2)}
    assert not any(0.6 < value < 0.85 for value in similar.values())
    found = clusters(SignedTexts.of(texts, NearEqual(threshold=0.75)))
    assert found == components(len(texts), [pair for pair, value in similar.items() if value > 0.75])
    assert len(found) == 16
    assert [len(group) for group in found[:2]] == [5, 3]


def test_a_chain_of_near_equal_texts_is_one_cluster():
    near = NearEqual(1, threshold=0.8)
    chain = [" ".join(VOCABULARY[start : start + 100]) for start in range(0, 300, 5)]
    rest = families(5, 60, (0, 2, 6), seed=1)
    signed = SignedTexts.of([*rest, *chain], near)
    agree = (signed.signatures[:, None] == signed.signatures).mean(axis=2) >= 0.8
    found = clusters(signed)
    assert found == components(len(signed.texts), np.argwhere(agree))
    assert found[0] == list(range(15, 75))


def test_copies_by_the_thousand_are_one_cluster():
    texts = ["Not found.", "something else"] + ["not found"] * 3000
    assert clusters(SignedTexts.of(texts, NearEqual())) == [[0, *range(2, 3002)]]
