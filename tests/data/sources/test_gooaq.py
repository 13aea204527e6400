import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crossrank.data.sources.gooaq import GooAQ
from crossrank.errors import AssetError, DataError

ROWS = 60


@pytest.fixture(autouse=True)
def _own_datasets_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets-cache")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "gooaq"


def write(folder, **columns) -> str:
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), folder / "train-00000-of-00001.parquet")
    return str(folder)


def texts(word: str, count: int = ROWS) -> list[str | None]:
    return [f"{word} {i}" for i in range(count)]


def test_a_local_folder_gives_the_recipes_split_of_its_first_rows(folder):
    path = write(folder, question=texts("q"), answer=texts("a"))
    splits = GooAQ(path, limit=50, dev_size=8, seed=12).load()
    rows = datasets.Dataset.from_dict({"question": texts("q"), "answer": texts("a")}).select(range(50))
    wanted = rows.train_test_split(test_size=8, seed=12)
    for got, reference in ((splits.train, wanted["train"]), (splits.dev, wanted["test"])):
        assert list(got.questions) == reference["question"][:]
        assert list(got.answers) == reference["answer"][:]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"query": texts("q"), "answer": texts("a")}, r"no column \['question'\]; the columns are: \['query', 'answer"),
        ({"text": texts("q")}, r"no column \['answer', 'question'\]"),
        ({"question": texts("q"), "answer": [*texts("a", 30), None, *texts("b", 29)]}, "row 31: 'answer' is not"),
        ({"question": texts("q"), "answer": list(range(ROWS))}, "row 1: 'answer' is not a text but 0"),
        ({"question": texts("q", 40), "answer": texts("a", 40)}, "40 rows, fewer than source.limit = 50"),
    ],
)
def test_rows_that_cannot_be_used_are_one_error(folder, columns, message):
    path = write(folder, **columns)
    with pytest.raises(DataError, match=message) as caught:
        GooAQ(path, limit=50, dev_size=8).load()
    assert str(caught.value).startswith(path)


@pytest.mark.parametrize("content", [None, b"no parquet"])
def test_a_folder_without_readable_data_is_one_error(folder, content):
    folder.mkdir()
    if content:
        (folder / "train.parquet").write_bytes(content)
    with pytest.raises(DataError, match=f"^{folder}: "):
        GooAQ(str(folder), limit=50, dev_size=8).load()


def test_without_hub_or_folder_the_asset_is_named(tmp_path):
    with pytest.raises(AssetError, match="no such folder"):
        GooAQ(str(tmp_path / "none")).load()
    with pytest.raises(AssetError, match="could not fetch dataset sentence-transformers/gooaq at revision abc"):
        GooAQ(revision="abc").load()


def test_the_fingerprint_follows_revision_rows_split_and_the_content_of_a_local_folder(folder):
    sources = [
        GooAQ(), GooAQ(revision="a"), GooAQ(revision="b"), GooAQ("other/gooaq"), GooAQ(limit=2000),
        GooAQ(dev_size=3), GooAQ(seed=3),
    ]  # fmt: skip
    made = {source.fingerprint() for source in sources}
    for word in ("a", "b"):
        made.add(GooAQ(write(folder, question=texts("q"), answer=texts(word))).fingerprint())
    assert len(made) == len(sources) + 2
    assert GooAQ(str(folder)).fingerprint() in made


@pytest.mark.parametrize("dev_size", [0, 50])
def test_a_dev_set_must_leave_rows_to_train_on(dev_size):
    with pytest.raises(ValueError, match="dev_size must be between 1 and limit - 1 = 49"):
        GooAQ(limit=50, dev_size=dev_size)
