import hashlib

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossrank.data import texts as module
from crossrank.data.texts import Texts, codes_by_appearance, digests, taken

texts = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=4), max_size=12)
slices = st.slices(12)


def in_arrays(lists: list[list[str]]) -> Texts:
    return Texts([pa.array(part, pa.large_string()) for part in lists])


@settings(deadline=None)
@given(parts=st.lists(texts, max_size=4), data=st.data())
def test_texts_behave_as_the_list_of_them(parts, data):
    held, wanted = in_arrays(parts), [text for part in parts for text in part]
    assert held == wanted
    assert wanted == held
    assert list(held) == wanted
    assert len(held) == len(wanted)
    assert [held[i] for i in range(-len(wanted), len(wanted))] == wanted + wanted
    first, second = data.draw(slices), data.draw(slices)
    assert held[first] == wanted[first]
    assert held[first][second] == wanted[first][second]
    rows = np.array(data.draw(st.lists(st.integers(0, max(len(wanted) - 1, 0)), max_size=8 if wanted else 0)), np.int64)
    assert held.take(rows) == [wanted[row] for row in rows] == taken(wanted, rows)
    assert Texts.joined([held, held[first]]) == wanted + wanted[first]
    assert held != [*wanted, "more"]
    assert (held == [text + "x" for text in wanted]) == (not wanted)


@pytest.mark.parametrize("block", [1, 2, 7])
def test_texts_are_looked_at_in_blocks(monkeypatch, block):
    monkeypatch.setattr(module, "TEXTS_PER_BLOCK", block)
    assert list(in_arrays([["a", "b"], [], ["c", "d", "e"]])[::2]) == ["a", "c", "e"]


def test_a_place_beyond_the_end_is_refused():
    for place in (2, -3):
        with pytest.raises(IndexError, match=f"there is no text {place} of 2"):
            Texts.of(["a", "b"])[place]


def test_views_share_the_arrays():
    held = in_arrays([["a" * 1000] * 1000])
    before = pa.total_allocated_bytes()
    views = [held[1:], held.take(np.arange(500)), Texts.joined([held, held[:2]])]
    assert pa.total_allocated_bytes() == before
    assert [len(view) for view in views] == [999, 500, 1002]
    assert Texts.of(held) is held


def test_a_digest_is_blake2b_of_the_bytes():
    wanted = [hashlib.blake2b(text.encode(), digest_size=16).digest() for text in ("a", "", "日本")]
    assert digests(["a", "", "日本"]).tolist() == wanted


@given(st.lists(st.sampled_from("abc")))
def test_codes_count_distinct_texts_in_order_of_first_appearance(words):
    codes, first = codes_by_appearance(digests(words))
    distinct = list(dict.fromkeys(words))
    assert codes.tolist() == [distinct.index(word) for word in words]
    assert first.tolist() == [words.index(word) for word in distinct]
    assert codes.dtype == np.int32
