import gzip
import json

import pandas as pd
import pytest
from some_documents import DOCUMENTS, QUESTION

from crossrank.errors import DataError
from crossrank.inference.one_question import first_stage, read_documents


def test_the_first_stage_keeps_all_of_a_few_documents_in_their_order():
    assert first_stage(QUESTION, DOCUMENTS, depth=6) == [0, 1, 2, 3, 4, 5]


def test_the_first_stage_keeps_the_documents_that_share_the_questions_words():
    kept = first_stage("mountains rivers", DOCUMENTS, depth=3)
    assert len(kept) == 3
    assert set(kept) == {1, 4, 5}
    assert set(kept[:2]) == {1, 4}  # both words


def test_the_first_stage_of_a_question_without_known_words_is_the_head_of_the_documents():
    assert first_stage("zzz qqq", DOCUMENTS, depth=2) == [0, 1]


TEXTS = ["first document", "the second, with a comma", "drittes Dokument: ä"]


def _write(folder, name, column):
    path, rows = folder / name, [{column: text, "id": i} for i, text in enumerate(TEXTS)]
    if name.endswith(".txt"):
        path.write_text("\n\n".join(TEXTS) + "\n", encoding="utf-8")
    elif name.endswith(".jsonl"):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif name.endswith(".jsonl.gz"):
        path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    elif name.endswith(".csv"):
        pd.DataFrame(rows).to_csv(path, index=False)
    else:
        pd.DataFrame(rows).to_parquet(path)
    return path


@pytest.mark.parametrize("column", ["text", "answer"])
@pytest.mark.parametrize("name", ["d.txt", "d.jsonl", "d.jsonl.gz", "d.csv", "d.parquet"])
def test_documents_are_read_from_every_format(name, column, tmp_path):
    assert read_documents(_write(tmp_path, name, column)) == TEXTS


@pytest.mark.parametrize("name", ["d.jsonl", "d.csv", "d.parquet"])
def test_a_file_without_a_text_column_is_refused_with_its_columns(name, tmp_path):
    path = _write(tmp_path, name, "body")
    with pytest.raises(DataError, match=r"d\.\w+, row 1: no text in a column 'text' or 'answer'.*: body, id"):
        read_documents(path)


@pytest.mark.parametrize("name", ["d.txt", "d.jsonl", "d.csv", "d.parquet"])
def test_a_file_that_is_not_there_is_named(name, tmp_path):
    with pytest.raises(DataError, match=r"d\.\w+: no such file"):
        read_documents(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("d.txt", b"", "holds no line"),
        ("d.txt", b" \n\n", "holds no line"),
        ("d.txt", b"caf\xe9", "not UTF-8"),
        ("d.jsonl", b"", "holds no rows"),
        ("d.jsonl", b'{"text": "a"}\n{"text": ', "row 2: cannot be parsed"),
        ("d.jsonl", b'{"text": "a"}\n{"text": null}', "row 2: no text"),
        ("d.jsonl", b'{"text": "  "}', "row 1: no text"),
        ("d.jsonl", b"[1]", "a JSON object is wanted"),
        ("d.csv", b"text\n\xe9", "not UTF-8"),
        ("d.parquet", b"no parquet", "not a readable parquet"),
        ("d.pdf", b"%PDF", "must end in one of"),
    ],
)
def test_a_broken_file_is_refused_by_name_and_row(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        read_documents(tmp_path / name)
    assert name in str(error.value)


def test_a_folder_is_no_document_file(tmp_path):
    (tmp_path / "d.txt").mkdir()
    with pytest.raises(DataError, match=r"d\.txt: no such file"):
        read_documents(tmp_path / "d.txt")


def test_a_line_ends_at_a_line_feed_and_nowhere_else(tmp_path):
    (tmp_path / "d.txt").write_bytes("one\u2028document\r\nanother\x0cone".encode())
    assert read_documents(tmp_path / "d.txt") == ["one\u2028document", "another\x0cone"]
