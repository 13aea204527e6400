import gzip
import json
import logging
import re
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import mine_hard_negatives

from crossrank.data.pairs import PairIndex, QAPairs
from crossrank.data.sources.lists_file import ListsFile
from crossrank.errors import AssetError, DataError
from crossrank.hub import Asset

ROWS = [{"query": f"q{i}", "docs": [f"a{i}", f"n{i}", "n"], "labels": [2, 0, 0]} for i in range(20)]


def write(file: Path, rows) -> str:
    if file.name.endswith((".jsonl", ".jsonl.gz")):
        text = "".join(json.dumps(row) + "\n" for row in rows).encode()
        file.write_bytes(gzip.compress(text) if file.suffix == ".gz" else text)
    else:
        data = datasets.Dataset.from_list(list(rows))
        data.to_parquet(file) if file.suffix == ".parquet" else _to_csv(data, file)
    return str(file)


def _to_csv(data: datasets.Dataset, file: Path) -> None:
    rows = data.to_pandas()
    for column in rows:
        if isinstance(rows[column][0], np.ndarray):
            rows[column] = [json.dumps(value.tolist()) for value in rows[column]]
    rows.to_csv(
        file, index=False, sep="\t" if file.suffix == ".tsv" else ",", quoting=3 if file.suffix == ".tsv" else 0
    )


def judged(pairs: QAPairs) -> set[tuple[str, str, float]]:
    labels = [1.0] * len(pairs) if pairs.labels is None else pairs.labels.tolist()
    return set(zip(pairs.questions, pairs.answers, labels, strict=True))


def everything(source: ListsFile) -> set[tuple[str, str, float]]:
    splits = source.load()
    return judged(splits.train) | judged(splits.dev)


EXPECTED = {(row["query"], d, float(n)) for row in ROWS for d, n in zip(row["docs"], row["labels"], strict=True)}


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.csv", "a.parquet"])
def test_every_kind_of_file_gives_the_same(tmp_path, name):
    assert everything(ListsFile(write(tmp_path / name, ROWS), dev_size=3)) == EXPECTED


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_folder_of_shards_is_the_rows_of_all_in_the_order_of_their_names(tmp_path, kind):
    (tmp_path / "deep").mkdir()
    for i, name in enumerate(["train-1", "train-0", "deep/train-2"]):
        write(tmp_path / f"{name}.{kind}", ROWS[5 * i : 5 * i + 5])
    (tmp_path / "README.md").write_text("no data")
    (tmp_path / ".hidden.jsonl").write_text("no data")
    dev = write(tmp_path.parent / f"dev.{kind}", ROWS[15:])
    splits = ListsFile(str(tmp_path), dev_path=dev).load()
    wanted = [row["query"] for row in (*ROWS[10:15], *ROWS[5:10], *ROWS[:5]) for _ in row["docs"]]
    assert list(splits.train.questions) == wanted
    assert len(ListsFile(str(tmp_path), dev_path=dev, limit=7).load().train) == 21
    assert len(ListsFile(str(tmp_path), dev_path=dev, files="deep/*").load().train) == 15


def test_which_of_a_folders_files_are_to_train_on_must_be_certain(tmp_path):
    write(tmp_path / "train.jsonl", ROWS)
    write(tmp_path / "test-00000-of-00001.jsonl", ROWS)
    with pytest.raises(DataError, match=r"'test-00000-of-00001.jsonl' looks like data to test on; name the files, su"):
        ListsFile(str(tmp_path)).load()
    assert everything(ListsFile(str(tmp_path), files="train*", dev_size=1)) == EXPECTED
    with pytest.raises(DataError, match="holds no train-9 that ends in one of"):
        ListsFile(str(tmp_path), files="train-9").load()


@pytest.mark.parametrize("files", ["", "/etc/*", "../*", "a/../../b"])
def test_a_pattern_stays_inside_its_folder(files):
    with pytest.raises(ValueError, match="files is a pattern inside the folder"):
        ListsFile("folder", files=files)


def test_a_hub_data_set_is_declared_at_its_revision_and_read_from_its_folder(tmp_path, monkeypatch):
    assert ListsFile("owner/name").assets() == ()
    source = ListsFile("owner/name", revision="abc", files="train*", dev_size=2)
    assert source.assets() == (Asset("dataset", "owner/name", "abc"),)
    assert source.fingerprint() != ListsFile("owner/name", revision="abd", files="train*", dev_size=2).fingerprint()
    with pytest.raises(AssetError, match="could not fetch dataset owner/name at revision abc"):
        source.load()
    (tmp_path / "data").mkdir()
    write(tmp_path / "data" / "train.parquet", ROWS)
    monkeypatch.setattr("crossrank.hub.huggingface_hub.snapshot_download", lambda *_, **__: str(tmp_path))
    assert everything(ListsFile("owner/name", revision="abc", files="data/train*", dev_size=2)) == EXPECTED


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet"])
@pytest.mark.parametrize("kind", ["triplet", "n-tuple", "labeled-pair", "labeled-list"])
def test_what_sentence_transformers_mines_is_read_as_it_was_meant(tmp_path, static_embedder, kind, name):
    """All four output formats of mine_hard_negatives hold the same questions, answers and negatives."""
    words = ["cat", "dog", "river", "stone", "music", "iron", "paper", "cloud", "winter", "engine", "bread", "ocean"]
    random = np.random.default_rng(0)
    pairs = {
        "query": [" ".join(random.choice(words, 3)) + f" {i}" for i in range(15)],
        "answer": [" ".join(random.choice(words, 5)) + f" {i}" for i in range(15)],
    }
    mined = mine_hard_negatives(
        datasets.Dataset.from_dict(pairs), SentenceTransformer(str(static_embedder), device="cpu"),
        range_max=10, num_negatives=3, output_format=kind, verbose=False,
    )  # fmt: skip
    got = everything(ListsFile(write(tmp_path / name, mined), dev_size=2))
    reference = mine_hard_negatives(
        datasets.Dataset.from_dict(pairs), SentenceTransformer(str(static_embedder), device="cpu"),
        range_max=10, num_negatives=3, output_format="labeled-pair", verbose=False,
    )  # fmt: skip
    assert len(reference) == 60
    assert got == {(row["query"], row["answer"], float(row["label"])) for row in reference}


@pytest.mark.filterwarnings("ignore")
def test_scored_triplets_of_sentence_transformers(tmp_path, static_embedder):
    pairs = {"query": [f"cat {i}" for i in range(8)], "answer": [f"dog river {i}" for i in range(8)]}
    mined = mine_hard_negatives(
        datasets.Dataset.from_dict(pairs), SentenceTransformer(str(static_embedder), device="cpu"),
        range_max=5, num_negatives=2, output_format="triplet", output_scores=True, verbose=False,
    )  # fmt: skip
    file = write(tmp_path / "a.parquet", mined)
    with pytest.raises(DataError, match="beside negatives may mean anything: name the format"):
        ListsFile(file).load()
    splits = ListsFile(file, format="scored_lists", dev_size=2).load()
    assert splits.train.scored
    wanted = {(r["query"], d, s) for r in mined for d, s in zip((r["answer"], r["negative"]), r["scores"], strict=True)}
    got = judged(splits.train) | judged(splits.dev)
    assert {pair[:2] for pair in got} == {pair[:2] for pair in wanted}
    assert sorted(s for *_, s in got) == pytest.approx(sorted(s for *_, s in wanted), abs=1e-6)


def test_the_dev_rows_are_those_of_datasets(tmp_path):
    """Where no question is repeated, whole rows are held out as train_test_split does it."""
    splits = ListsFile(write(tmp_path / "a.jsonl", ROWS), dev_size=4, seed=3).load()
    reference = datasets.Dataset.from_list(ROWS).train_test_split(test_size=4, seed=3)
    for got, wanted in ((splits.train, reference["train"]), (splits.dev, reference["test"])):
        assert list(got.questions) == [row["query"] for row in wanted for _ in row["docs"]]
        assert list(got.answers) == [text for row in wanted for text in row["docs"]]


def test_a_question_is_held_out_with_all_its_rows_and_only_if_it_has_an_answer(tmp_path):
    rows = [{"query": f"q{i % 5}", "positive": f"a{i}", "negative": f"n{i}"} for i in range(20)]
    splits = ListsFile(write(tmp_path / "a.jsonl", rows), dev_size=2).load()
    assert len(set(splits.dev.questions)) == 2
    assert not set(splits.dev.questions) & set(splits.train.questions)
    assert len(splits.train) + len(splits.dev) == 40
    rows = [{"query": f"q{i}", "docs": ["a", "b"], "labels": [i % 2, 0]} for i in range(20)]
    splits = ListsFile(write(tmp_path / "b.jsonl", rows), dev_size=9).load()
    assert {int(question[1:]) % 2 for question in splits.dev.questions} == {1}
    with pytest.raises(DataError, match="10 questions with an answer, of which 10 were to be held out"):
        ListsFile(str(tmp_path / "b.jsonl"), dev_size=10).load()


def test_the_best_of_a_scored_list_counts_as_its_answer(tmp_path):
    rows = [{"query": f"q{i}", "docs": ["low", "high", "mid"], "scores": [-9, -1.5, -3]} for i in range(4)]
    train = ListsFile(write(tmp_path / "a.jsonl", rows), dev_size=1).load().train
    index = PairIndex.of(train)
    assert [index.documents[d] for d in index.positives] == ["high"] * 3
    assert [index.documents[d] for d in index.judged.documents[:3]] == ["high", "mid", "low"]


@pytest.mark.parametrize(
    ("rescale", "scores", "wanted"),
    [("sigmoid", [-1e30, 0, 1e30], [0, 0.5, 1]), ("largest", [0, 1, 4], [0, 0.25, 1]), ("none", [0, 1, 4], [0, 1, 4])],
)
def test_scores_can_be_brought_between_0_and_1(tmp_path, rescale, scores, wanted):
    rows = [{"query": f"q{i}", "docs": ["a", "b", "c"], "scores": scores} for i in range(3)]
    train = ListsFile(write(tmp_path / "a.jsonl", rows), dev_size=1, rescale=rescale).load().train
    np.testing.assert_allclose(train.labels[:3], wanted)
    assert train.labels.dtype == np.float32


def test_what_cannot_be_rescaled_is_refused(tmp_path):
    pairs = write(tmp_path / "a.jsonl", [{"query": "q", "answer": "a"}])
    low = write(tmp_path / "b.jsonl", [{"query": "q", "docs": ["a", "b"], "scores": [-1, -2]}])
    with pytest.raises(DataError, match="rescale=sigmoid needs labels or scores, and pairs have none"):
        ListsFile(pairs, rescale="sigmoid").load()
    with pytest.raises(DataError, match="rescale=largest needs labels from 0 up, got -2 to -1"):
        ListsFile(low, rescale="largest").load()


BAD = [
    {"query": "", "docs": ["a"], "labels": [1]},
    {"query": "q", "docs": ["a", ""], "labels": [1, 0]},
    {"query": "q", "docs": ["a", "b"], "labels": [1]},
    {"query": "q", "docs": ["a", "b"], "labels": [1, -1]},
]


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_row_is_named_with_its_shard(tmp_path, bad):
    write(tmp_path / "0.jsonl", ROWS)
    write(tmp_path / "1.jsonl", [*ROWS[:3], bad])
    with pytest.raises(DataError, match=rf"^{re.escape(str(tmp_path / '1.jsonl'))}, row 4: '"):
        ListsFile(str(tmp_path), dev_size=1).load()


def test_dropped_rows_are_counted_a_warning_a_file(tmp_path, caplog):
    for name in ("0.jsonl", "1.jsonl"):
        write(tmp_path / name, [BAD[0], *ROWS, *BAD[1:]])
    assert everything(ListsFile(str(tmp_path), dev_size=1, bad_rows="drop")) == EXPECTED
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [w.partition(":")[0] for w in warnings] == [str(tmp_path / "0.jsonl"), str(tmp_path / "1.jsonl")]
    assert all("dropped 4 unusable rows, the first: row 1: 'query' is empty or not a text" in w for w in warnings)
    with pytest.raises(DataError, match="no usable row"):
        ListsFile(write(tmp_path / "0.jsonl", BAD), bad_rows="drop").load()


@pytest.mark.parametrize("bad_rows", ["error", "drop"])
def test_wrong_columns_are_never_dropped(tmp_path, bad_rows):
    file = write(tmp_path / "a.jsonl", [{"x": 1, "y": 2}])
    with pytest.raises(DataError, match=r"a.jsonl, row 1: the columns are: x, y; expected are question with positive"):
        ListsFile(file, bad_rows=bad_rows).load()
    file = write(tmp_path / "b.jsonl", [*ROWS, {"query": "q", "docs": ["a"]}])
    with pytest.raises(DataError, match=r"b.jsonl, row 21: no column 'labels'; the columns are: query, docs"):
        ListsFile(file, bad_rows=bad_rows).load()


def test_both_files_must_be_labelled_alike(tmp_path):
    lists, pairs = write(tmp_path / "a.jsonl", ROWS), write(tmp_path / "b.jsonl", [{"query": "q", "answer": "a"}])
    with pytest.raises(DataError, match=r"b.jsonl: is of another format than .*a.jsonl"):
        ListsFile(lists, dev_path=pairs).load()


def test_the_fingerprint_follows_content_and_settings_but_not_the_place(tmp_path):
    first, copy, other = (tmp_path / name for name in ("a.jsonl", "b.jsonl", "c.jsonl"))
    for file, rows in ((first, ROWS), (copy, ROWS), (other, ROWS[1:])):
        write(file, rows)
    (tmp_path / "folder").mkdir()
    write(tmp_path / "folder" / "a.jsonl", ROWS)
    a, c = str(first), str(other)
    assert len({ListsFile(str(f)).fingerprint() for f in (first, copy, tmp_path / "folder")}) == 1
    different = [
        ListsFile(a), ListsFile(c), ListsFile(a, dev_path=c), ListsFile(a, dev_path=a), ListsFile(a, limit=3),
        ListsFile(a, format="labelled_lists"), ListsFile(a, question_column="query"), ListsFile(a, dev_size=3),
        ListsFile(a, documents_column="query"), ListsFile(a, seed=3), ListsFile(a, bad_rows="drop"),
        ListsFile(a, rescale="largest"),
    ]  # fmt: skip
    assert len({source.fingerprint() for source in different}) == len(different)


def test_missing_files_and_impossible_counts(tmp_path):
    for source in (ListsFile(str(tmp_path / "none.jsonl")), ListsFile(str(tmp_path), dev_path="x")):
        for ask in (source.fingerprint, source.load):
            with pytest.raises(DataError):
                ask()
    for settings in ({"limit": 0}, {"dev_size": 0}):
        with pytest.raises(ValueError, match="must be at least 1, got 0"):
            ListsFile("a.jsonl", **settings)


def test_the_examples_of_the_documentation_are_what_they_are_said_to_be(tmp_path):
    section = (ROOT / "docs" / "data.md").read_text(encoding="utf-8").partition("## Formats")[2].partition("\n## ")[0]
    found = []
    for i, (kind, example) in enumerate(re.findall(r"```(json|csv)\n(.*?)```", section, re.DOTALL)):
        file = tmp_path / f"{i}.{kind.replace('json', 'jsonl')}"
        file.write_text(example)
        train = ListsFile(str(file), dev_path=str(file)).load().train
        found.append((train.labels if train.labels is None else train.labels.tolist(), train.scored))
    wanted = [
        (None, False),
        ([1, 0, 1, 0], False),
        ([1, 0, 0], False),
        ([2, 1, 0, 1], False),
        ([7.25, -3.5, 6, 4.5], True),
    ]
    assert found == wanted


def test_reading_streams_into_files(tmp_path):
    """What comes back lies in mapped files, not in memory."""
    rows = [{"query": f"q{i}", "docs": ["a" * 2000, f"b{i}" * 500], "labels": [1, 0]} for i in range(500)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    (tmp_path / "scratch").mkdir()
    before = pa.total_allocated_bytes()
    splits = ListsFile(str(tmp_path / "a.parquet"), dev_size=5).stream(tmp_path / "scratch")
    assert len(splits.train) == 990
    assert pa.total_allocated_bytes() - before < 200_000
    assert [file.name for file in (tmp_path / "scratch").iterdir()] == ["train.arrow"]
