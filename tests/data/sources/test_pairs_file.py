import json
import logging

import pytest

from crossrank.data.pairs import QAPairs, split_dev
from crossrank.data.sources.pairs_file import PairsFile
from crossrank.errors import DataError

ROWS = [{"question": f"question {i}?", "answer": f"answer {i}"} for i in range(20)]


def jsonl(file, rows) -> str:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def test_dev_rows_are_split_off_by_seed(tmp_path):
    splits = PairsFile(jsonl(tmp_path / "a.jsonl", ROWS), dev_size=5, seed=3).load()
    whole = QAPairs([row["question"] for row in ROWS], [row["answer"] for row in ROWS])
    assert splits == split_dev(whole, 5, 3)


def test_a_dev_file_leaves_the_training_rows_whole_and_in_order(tmp_path):
    train, dev = jsonl(tmp_path / "a.jsonl", ROWS[:15]), jsonl(tmp_path / "b.jsonl", ROWS[15:])
    splits = PairsFile(train, dev_path=dev, limit=10).load()
    assert list(splits.train.questions) == [row["question"] for row in ROWS[:10]]
    assert list(splits.dev.answers) == [row["answer"] for row in ROWS[15:]]


def test_columns_are_named_by_config_and_others_ignored(tmp_path):
    (tmp_path / "a.csv").write_text("id,q,a\n1,who,me\n2,where,here\n")
    splits = PairsFile(str(tmp_path / "a.csv"), question_column="q", answer_column="a", dev_size=1).load()
    assert {*splits.train.questions, *splits.dev.questions} == {"who", "where"}


def test_a_limit_takes_the_first_rows_and_reads_no_further(tmp_path):
    file = tmp_path / "a.jsonl"
    jsonl(file, ROWS[:4])
    file.write_text(file.read_text() + "nonsense")
    splits = PairsFile(str(file), dev_size=1, limit=4).load()
    assert len(splits.train) + len(splits.dev) == 4


BAD = [
    ({"question": "", "answer": "a"}, "'question'"),
    ({"question": "q", "answer": None}, "'answer'"),
    ({"question": "q", "answer": 42}, "'answer'"),
    ({"question": " \t", "answer": "a"}, "'question'"),
    ({"question": "half \ud800", "answer": "a"}, "'question'"),
]


@pytest.mark.parametrize(("row", "column"), BAD)
def test_a_row_without_question_or_answer_is_named(tmp_path, row, column):
    file = jsonl(tmp_path / "a.jsonl", [*ROWS[:3], row, *ROWS[3:]])
    with pytest.raises(DataError, match=rf"^{file}, row 4: {column} is empty or not a text"):
        PairsFile(file, dev_size=1).load()


def test_dropped_rows_are_counted_in_one_warning(tmp_path, caplog):
    file = jsonl(tmp_path / "a.jsonl", [ROWS[0], *(row for row, _ in BAD), *ROWS[1:]])
    splits = PairsFile(file, dev_size=1, bad_rows="drop").load()
    assert len(splits.train) + len(splits.dev) == len(ROWS)
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert warnings[0].startswith(f"{file}: dropped 5 unusable rows, the first: row 2: 'question' is empty")


def test_a_file_of_bad_rows_only_is_refused(tmp_path):
    file = jsonl(tmp_path / "a.jsonl", [row for row, _ in BAD])
    with pytest.raises(DataError, match="no usable row"):
        PairsFile(file, dev_size=1, bad_rows="drop").load()


@pytest.mark.parametrize("bad_rows", ["error", "drop"])
def test_a_wrong_column_name_lists_the_right_ones_and_is_never_dropped(tmp_path, bad_rows):
    file = jsonl(tmp_path / "a.jsonl", ROWS)
    with pytest.raises(DataError, match=r"row 1: no column 'query'; the columns are: question, answer"):
        PairsFile(file, question_column="query", dev_size=1, bad_rows=bad_rows).load()


def test_a_short_csv_row_is_named(tmp_path):
    (tmp_path / "a.csv").write_text("question,answer\nwho,me\nwhere\n")
    with pytest.raises(DataError, match=r"a.csv, row 2: 'answer' is empty"):
        PairsFile(str(tmp_path / "a.csv"), dev_size=1).load()


def test_a_missing_file_is_named_before_anything_is_read(tmp_path):
    train = jsonl(tmp_path / "a.jsonl", ROWS)
    for source in (PairsFile(str(tmp_path / "none.jsonl")), PairsFile(train, dev_path=str(tmp_path / "none.jsonl"))):
        for ask in (source.fingerprint, source.load):
            with pytest.raises(DataError, match=r"none.jsonl: no such file"):
                ask()


def test_holding_out_every_row_is_refused(tmp_path):
    with pytest.raises(DataError, match="none would be left"):
        PairsFile(jsonl(tmp_path / "a.jsonl", ROWS), dev_size=20).load()


def test_the_fingerprint_follows_content_and_settings_but_not_the_place(tmp_path):
    first, copy = jsonl(tmp_path / "a.jsonl", ROWS), jsonl(tmp_path / "b.jsonl", ROWS)
    other = jsonl(tmp_path / "c.jsonl", ROWS[1:])
    assert PairsFile(first).fingerprint() == PairsFile(copy).fingerprint()
    different = [
        PairsFile(first), PairsFile(other), PairsFile(first, dev_path=other), PairsFile(first, dev_path=copy),
        PairsFile(first, question_column="answer"), PairsFile(first, answer_column="question"),
        PairsFile(first, limit=3), PairsFile(first, dev_size=3), PairsFile(first, seed=3),
        PairsFile(first, bad_rows="drop"),
    ]  # fmt: skip
    assert len({source.fingerprint() for source in different}) == len(different)


@pytest.mark.parametrize("settings", [{"limit": 0}, {"dev_size": 0}])
def test_impossible_counts_are_refused(settings):
    with pytest.raises(ValueError, match="must be at least 1, got 0"):
        PairsFile("a.jsonl", **settings)


def test_a_folder_of_shards_is_one_file(tmp_path):
    folder, dev = tmp_path / "shards", tmp_path / "dev"
    for where in (folder, dev):
        where.mkdir()
    jsonl(folder / "b.jsonl", ROWS[8:15])
    jsonl(folder / "a.jsonl", ROWS[:8])
    jsonl(dev / "c.jsonl", ROWS[15:])
    whole = jsonl(tmp_path / "whole.jsonl", ROWS[:15])
    splits = PairsFile(str(folder), dev_path=str(dev)).load()
    assert splits == PairsFile(whole, dev_path=str(dev / "c.jsonl")).load()
    assert list(splits.train.questions) == [row["question"] for row in ROWS[:15]]
    assert len(PairsFile(str(folder), dev_path=str(dev), limit=9).load().train) == 9
    before = PairsFile(str(folder)).fingerprint()
    jsonl(folder / "b.jsonl", ROWS[8:14])
    assert PairsFile(str(folder)).fingerprint() != before
    jsonl(folder / "b.jsonl", [*ROWS[8:14], {"question": "", "answer": "a"}])
    with pytest.raises(DataError, match=rf"^{folder / 'b.jsonl'}, row 7: 'question' is empty"):
        PairsFile(str(folder)).load()
