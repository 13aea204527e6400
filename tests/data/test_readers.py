import csv
import gzip
import json
import logging
from contextlib import contextmanager
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from crossrank.data.readers import BadRows, read_all, read_lines, read_rows, shards, text_column
from crossrank.errors import DataError

ROWS = [
    {"question": "who?", "answer": "me"},
    {"question": 'with "quotes", commas', "answer": "and\na line\nbreak"},
    {"question": "日本語 🤷", "answer": " spaces kept "},
]
JSONL = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


def as_csv(path: Path, encoding: str = "utf-8") -> None:
    with path.open("w", newline="", encoding=encoding) as stream:
        writer = csv.DictWriter(stream, list(ROWS[0]))
        writer.writeheader()
        writer.writerows(ROWS)


def as_arrow(path: Path, table: pa.Table, opener=pa.ipc.new_file) -> None:
    with path.open("wb") as stream, opener(stream, table.schema) as writer:
        writer.write_table(table)


def write(path: Path, content: str | bytes) -> Path:
    raw = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


def test_every_format_gives_the_same_numbered_rows(tmp_path):
    for name in ("a.jsonl", "a.jsonl.gz"):
        write(tmp_path / name, JSONL)
    as_csv(tmp_path / "a.csv")
    write(tmp_path / "a.csv.gz", (tmp_path / "a.csv").read_bytes())
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    as_arrow(tmp_path / "a.arrow", pa.Table.from_pylist(ROWS))
    as_arrow(tmp_path / "stream.arrow", pa.Table.from_pylist(ROWS), pa.ipc.new_stream)
    for name in ("a.jsonl", "a.jsonl.gz", "a.csv", "a.csv.gz", "a.parquet", "a.arrow", "stream.arrow"):
        assert list(read_rows(tmp_path / name)) == list(enumerate(ROWS, start=1)), name


def test_what_datasets_saves_can_be_read(tmp_path):
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    (file,) = shards(tmp_path / "saved")
    assert [row for _, row in read_rows(file)] == ROWS


def test_in_a_tsv_a_quotation_mark_is_a_character(tmp_path):
    """As BEIR and MS MARCO write them."""
    rows = [{"_id": "1", "text": 'say "hello'}, {"_id": "2", "text": "it's 5\" long"}]
    content = "_id\ttext\n" + "".join(f"{row['_id']}\t{row['text']}\n" for row in rows)
    for name in ("a.tsv", "a.tsv.gz"):
        assert [row for _, row in read_rows(write(tmp_path / name, content))] == rows


def test_lines_are_numbered_without_the_blank_ones(tmp_path):
    for name in ("a.txt", "a.txt.gz"):
        file = write(tmp_path / name, "one\n\n  \ntwo\n")
        assert [(number, line.strip()) for number, line in read_lines(file)] == [(1, "one"), (2, "two")]
    with pytest.raises(DataError, match="no such file"):
        list(read_lines(tmp_path / "b.txt"))
    with pytest.raises(DataError, match="row 2: not UTF-8"):
        list(read_lines(write(tmp_path / "c.txt", b"fine\n\xff\n")))


def test_the_last_suffix_says_what_the_file_is(tmp_path):
    assert len(list(read_rows(write(tmp_path / "exported.csv.jsonl", JSONL)))) == 3


def test_the_byte_order_mark_that_excel_writes_is_no_part_of_the_first_column(tmp_path):
    as_csv(tmp_path / "a.csv", encoding="utf-8-sig")
    (tmp_path / "a.jsonl").write_text(JSONL, encoding="utf-8-sig")
    for name in ("a.csv", "a.jsonl"):
        assert [row for _, row in read_rows(tmp_path / name)] == ROWS


def test_windows_line_ends_and_blank_lines_are_no_rows(tmp_path):
    file = write(tmp_path / "a.jsonl", '{"a": 1}\r\n\r\n  \n{"a": 2}')
    assert list(read_rows(file)) == [(1, {"a": 1}), (2, {"a": 2})]


def test_a_file_of_several_batches_is_numbered_through(tmp_path):
    table = pa.table({"a": list(range(10_000))})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=3000)
    as_arrow(tmp_path / "a.arrow", table)
    for name in ("a.parquet", "a.arrow"):
        assert [(number, row["a"]) for number, row in read_rows(tmp_path / name)] == [(i + 1, i) for i in range(10_000)]


GOOD = '{"a": 1}\n'
MANY = GOOD * 5


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", "", "{}: the file holds no rows"),
        ("a.jsonl", "\n \n", "{}: the file holds no rows"),
        ("a.jsonl.gz", "", "{}: the file holds no rows"),
        ("a.csv", "", "{}: the file holds no rows"),
        ("a.csv", "question,answer\n", "{}: the file holds no rows"),
        ("a.jsonl", MANY + "{broken\n", "{}, row 6: cannot be parsed (Expecting property name"),
        ("a.jsonl", MANY + "\n\n{broken\n", "{}, row 6: cannot be parsed (Expecting property name"),
        ("a.jsonl", MANY + "[1, 2]\n", "{}, row 6: a JSON object is wanted, got list"),
        ("a.jsonl", "\n\n" + MANY + '"text"\n', "{}, row 6: a JSON object is wanted, got str"),
        ("a.jsonl", MANY + "[" * 100_000, "{}, row 6: cannot be parsed"),
        ("a.jsonl", MANY + '{"a": ' + "1" * 5000 + "}", "{}, row 6: cannot be parsed"),
        ("a.jsonl", MANY.encode() + b'{"a": "\xff"}\n' + MANY.encode(), "{}, row 6: not UTF-8 (invalid start byte)"),
        ("a.jsonl", MANY.encode() + b'{"a": "caf\xe9"}', "{}, row 6: not UTF-8"),
        ("a.jsonl.gz", MANY.encode() + b"\xff\xfe\n", "{}, row 6: not UTF-8"),
        ("a.csv", b"q,a\none,two\nthree,caf\xe9\n", "{}, row 2: not UTF-8"),
        ("a.csv", 'q,a\none,two\nthree,"open\n', "{}, row 2: cannot be parsed (unexpected end of data)"),
        ("a.csv", 'q,a\none,"two"x\n', "{}, row 1: cannot be parsed"),
        ("a.jsonl", JSONL.encode("utf-16"), "{}, row 1: not UTF-8"),
        ("a.parquet", b"PAR1 this is no parquet PAR1", "{}: not a readable parquet file"),
        ("a.parquet", b"", "{}: not a readable parquet file"),
        ("a.arrow", b"ARROW1 this is none", "{}: not a readable arrow file"),
        ("a.arrow", b"", "{}: not a readable arrow file"),
        ("a.xls", "q", "{}: the name must end in one of .jsonl, .jsonl.gz, .csv, .csv.gz, .tsv, .tsv.gz, .parquet"),
    ],
)
def test_a_broken_file_is_one_error_that_names_file_and_row(tmp_path, name, content, message):
    file = write(tmp_path / name, content)
    with pytest.raises(DataError) as caught:
        list(read_rows(file))
    assert str(caught.value).startswith(message.format(file))
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    for path in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(DataError, match=f"^{path}: no such file$"):
            list(read_rows(path))


@pytest.mark.parametrize("keep", [5, 20, -9, -1])
def test_a_truncated_gz_says_so(tmp_path, keep):
    whole = gzip.compress(MANY.encode())
    file = tmp_path / "a.jsonl.gz"
    file.write_bytes(whole[:keep])
    with pytest.raises(DataError, match=rf"^{file}, after row \d: the gz is truncated or broken"):
        list(read_rows(file))


def test_a_gz_that_is_none_says_so(tmp_path):
    file = tmp_path / "a.jsonl.gz"
    file.write_text(JSONL)
    with pytest.raises(DataError, match="after row 0: the gz is truncated or broken"):
        list(read_rows(file))


def test_a_parquet_with_damaged_pages_says_so(tmp_path):
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": [f"text {i}" for i in range(5000)]}), file)
    raw = bytearray(file.read_bytes())
    raw[4:400] = bytes(396)
    file.write_bytes(raw)
    with pytest.raises(DataError, match=rf"^{file}: not a readable parquet file"):
        list(read_rows(file))


def test_rows_before_the_broken_one_are_read(tmp_path):
    rows = read_rows(write(tmp_path / "a.jsonl", MANY + "nonsense"))
    assert [next(rows) for _ in range(5)] == [(i, {"a": 1}) for i in range(1, 6)]
    with pytest.raises(DataError, match="row 6"):
        next(rows)


@contextmanager
def only_a_data_error_about(file: Path):
    try:
        yield
    except DataError as error:
        if str(file) not in str(error):
            raise AssertionError("the file is not named") from error


suffixes = st.sampled_from([".jsonl", ".jsonl.gz", ".csv", ".csv.gz", ".parquet", ".arrow"])


@settings(deadline=None, max_examples=150)
@given(raw=st.binary(max_size=200) | st.text(max_size=100).map(str.encode), suffix=suffixes, zipped=st.booleans())
@example(raw=b'{"a": 1}\r{"b": 2}', suffix=".jsonl", zipped=False)
@example(raw=b"a,b\r1,2\r", suffix=".csv", zipped=False)
@example(raw=b"\x1f\x8b\x08\x04\xff\xff", suffix=".csv.gz", zipped=False)
@example(raw=b"NaN", suffix=".jsonl", zipped=False)
def test_whatever_the_bytes_only_a_data_error_comes_out(tmp_path_factory, raw, suffix, zipped):
    file = tmp_path_factory.getbasetemp() / f"fuzz{suffix}"
    file.write_bytes(gzip.compress(raw) if zipped and suffix.endswith(".gz") else raw)
    numbers = []
    with only_a_data_error_about(file):
        numbers.extend(number for number, _ in read_rows(file))
    assert numbers == list(range(1, len(numbers) + 1))


@settings(deadline=None, max_examples=150)
@given(data=st.data(), suffix=st.sampled_from([".jsonl.gz", ".parquet", ".arrow"]))
def test_however_a_good_file_is_damaged_only_a_data_error_comes_out(tmp_path_factory, data, suffix):
    file = tmp_path_factory.getbasetemp() / f"damaged{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), file)
    elif suffix == ".arrow":
        as_arrow(file, pa.Table.from_pylist(ROWS), data.draw(st.sampled_from([pa.ipc.new_file, pa.ipc.new_stream])))
    else:
        file.write_bytes(gzip.compress(JSONL.encode(), mtime=0))
    raw = bytearray(file.read_bytes())
    start = data.draw(st.integers(0, len(raw) - 1))
    damage = data.draw(st.binary(min_size=1, max_size=8))
    raw[start : start + len(damage)] = damage
    file.write_bytes(raw)
    with only_a_data_error_about(file):
        list(read_rows(file))


@pytest.mark.parametrize("value", [None, "", "  \n", 3, ["a"], "\ud800 half a character"])
def test_what_is_no_text_is_none(value, tmp_path):
    assert text_column({"a": value}, "a", tmp_path, 1) is None


def test_a_text_comes_as_it_stands(tmp_path):
    assert text_column({"a": " b "}, "a", tmp_path, 1) == " b "


def test_a_missing_column_names_those_there_are(tmp_path):
    with pytest.raises(DataError, match=r"f.csv, row 1: no column 'question'; the columns are: query, answer"):
        text_column({"query": "a", "answer": "b"}, "question", tmp_path / "f.csv", 1)


def test_the_first_bad_row_stops_or_all_are_counted_in_one_warning(caplog):
    with pytest.raises(DataError, match=r"^f.csv, row 7: blank$"):
        BadRows(Path("f.csv")).reject(7, "blank")
    bad = BadRows(Path("f.csv"), "drop")
    bad.warn()
    bad.reject(7, "blank")
    bad.reject(9, "a number")
    bad.warn()
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == ["f.csv: dropped 2 unusable rows, the first: row 7: blank"]


def test_a_paths_shards_are_itself_or_its_folders_readable_files_by_name(tmp_path):
    for name in ("b.jsonl", "a/c.parquet", "a/b.csv.gz", "README.md", ".a.jsonl", "latest.jsonl", "trainings.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert shards(tmp_path / "b.jsonl") == [tmp_path / "b.jsonl"]
    wanted = ["a/b.csv.gz", "a/c.parquet", "b.jsonl", "latest.jsonl", "trainings.csv"]
    assert shards(tmp_path) == [tmp_path / name for name in wanted]
    assert shards(tmp_path, "a/*") == [tmp_path / name for name in wanted[:2]]
    with pytest.raises(DataError, match=f"^{tmp_path}: holds no z\\* that ends in one of .jsonl, "):
        shards(tmp_path, "z*")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no file that ends in one of"):
        shards(tmp_path / "empty")
    with pytest.raises(DataError, match="no such file"):
        shards(tmp_path / "none")


@pytest.mark.parametrize("name", ["test.jsonl", "dev-00000-of-00001.parquet", "validation/0.csv", "a_eval.jsonl"])
def test_a_file_named_like_another_split_is_only_read_when_asked_for(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("x")
    with pytest.raises(DataError, match=f"'{name}' looks like data to test on; name the files, such as files='train"):
        shards(tmp_path)
    assert shards(tmp_path, name) == [tmp_path / name]


def test_rows_of_several_files_go_on_until_the_limit_and_no_further(tmp_path, caplog):
    files = [write(tmp_path / f"{i}.jsonl", MANY) for i in range(2)] + [write(tmp_path / "2.jsonl", "nonsense")]
    for limit, wanted in ((1, [1]), (5, [1, 2, 3, 4, 5]), (7, [1, 2, 3, 4, 5, 1, 2]), (10, [1, 2, 3, 4, 5] * 2)):
        assert [number for _, number, _ in read_all(files, "error", limit)] == wanted
    with pytest.raises(DataError, match=r"2.jsonl, row 1"):
        list(read_all(files, "error"))
    for bad, number, _ in read_all(files[:2], "drop", 7):
        bad.reject(number, "odd")
    assert [message.split(" unusable")[0] for message in caplog.messages] == [
        f"{files[0]}: dropped 5", f"{files[1]}: dropped 2",
    ]  # fmt: skip
