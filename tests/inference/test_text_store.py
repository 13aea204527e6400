import json
import mmap

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossrank.errors import DataError
from crossrank.inference import text_store as module
from crossrank.inference.text_store import text_store

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)


def write(folder, rows, name="corpus.jsonl"):
    folder.mkdir(exist_ok=True)
    file = folder / name
    if name.endswith(".jsonl"):
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif name.endswith(".parquet"):
        pa.parquet.write_table(pa.Table.from_pylist(rows), file)
    else:
        table = pa.Table.from_pylist(rows)
        with pa.ipc.new_file(str(file), table.schema) as writer:
            writer.write_table(table)
    return file


ROWS = [{"_id": f"d{i}", "title": "T" if i % 2 else "", "text": f"text {i}"} for i in range(7)]


@settings(deadline=None, max_examples=20)
@given(texts=st.dictionaries(words.filter(bool), words, min_size=1, max_size=12), data=st.data())
def test_a_store_is_a_dictionary(texts, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    file = write(folder, [{"_id": key, "text": text} for key, text in texts.items()])
    store = text_store(file, "corpus", False, folder / "cache")
    asked = data.draw(st.lists(st.sampled_from(sorted(texts)), max_size=9))
    assert store.texts(asked) == [texts[key].strip() for key in asked]
    store.let_go()  # and it is read again
    assert store.texts(asked) == [texts[key].strip() for key in asked]
    unknown = [key + "?" for key in asked if key + "?" not in texts]
    assert store.rows(unknown).tolist() == [-1] * len(unknown)
    assert len(store) == len(texts)


@pytest.mark.parametrize("name", ["corpus.jsonl", "corpus.parquet", "corpus.arrow"])
@pytest.mark.parametrize("block", [2, 100])
def test_files_and_folders_of_every_kind_hold_the_same(name, block, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "TEXTS_PER_BLOCK", block)
    file = write(tmp_path / "beir", ROWS, name)
    for place in (file, tmp_path / "beir"):
        store = text_store(place, "corpus", True, tmp_path / f"cache-{block}-{place.name}")
        assert store.texts(["d6", "d1", "d6"]) == ["text 6", "T text 1", "text 6"]


def test_it_is_built_once_and_again_for_other_content(tmp_path, monkeypatch):
    file = write(tmp_path / "beir", ROWS)
    first = text_store(file, "corpus", True, tmp_path / "cache")
    assert text_store(file, "corpus", False, tmp_path / "cache").name != first.name
    monkeypatch.setattr(module, "_write", lambda *_: pytest.fail("built again"))
    assert text_store(file, "corpus", True, tmp_path / "cache").name == first.name
    write(tmp_path / "beir", ROWS[:3])
    with pytest.raises(pytest.fail.Exception):
        text_store(file, "corpus", True, tmp_path / "cache")


def test_texts_are_mapped_and_not_held(tmp_path):
    file = write(tmp_path / "beir", [{"_id": str(i), "text": "x" * 1000} for i in range(5000)])
    text_store(file, "corpus", True, tmp_path / "cache")
    before = pa.total_allocated_bytes()
    store = text_store(file, "corpus", True, tmp_path / "cache")
    assert store.texts(["4999"]) == ["x" * 1000]
    assert pa.total_allocated_bytes() - before < 100_000
    assert isinstance(store._map, mmap.mmap)
    assert all(isinstance(array, np.memmap) for array in (store._digests, store._rows))


def test_what_is_no_collection_is_named(tmp_path):
    with pytest.raises(DataError, match="no such file or folder; give a corpus file, or a folder with one of corpus"):
        text_store(tmp_path / "nowhere", "corpus", True, tmp_path)
    (tmp_path / "photos").mkdir()
    with pytest.raises(DataError, match=r"BEIR shape holds one of queries\.jsonl, .*; this one holds none of them"):
        text_store(tmp_path / "photos", "queries", True, tmp_path)
    (tmp_path / "c.pdf").write_bytes(b"%PDF")
    with pytest.raises(DataError, match="must end in one of"):
        text_store(tmp_path / "c.pdf", "corpus", True, tmp_path)
    twice = write(tmp_path / "beir", [*ROWS, ROWS[2], ROWS[1]])
    with pytest.raises(DataError, match="row 8: the id 'd2' stands here a second time"):
        text_store(twice, "corpus", True, tmp_path / "cache")
    with pytest.raises(DataError, match="row 1: no '_id'; the columns are: id, text"):
        text_store(write(tmp_path / "b", [{"id": "1", "text": "a"}]), "corpus", True, tmp_path / "cache")
