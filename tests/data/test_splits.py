import pytest

from crossrank.data.pair_file import open_pairs, write_pairs
from crossrank.data.pairs import Ingredients, QAPairs, Splits
from crossrank.data.readers import read_rows
from crossrank.data.splits import load_splits, streamed, training_texts
from crossrank.errors import DataError


class Toy:
    loads = 0

    def assets(self):
        return ()

    def ingredients(self):
        return Ingredients({}, {})

    def fingerprint(self):
        return "toy"

    def load(self):
        self.loads += 1
        return Splits(QAPairs(["q one", "q two"], ["ä\n1", "😀 2"]), QAPairs(["dev"], ["answer"]))


def test_a_source_is_read_once_and_comes_back_the_same(tmp_path):
    source = Toy()
    first, second = load_splits(source, tmp_path), load_splits(source, tmp_path)
    assert source.loads == 1
    assert first == second == Toy().load()


def test_a_source_that_fails_leaves_no_cache(tmp_path):
    class Broken(Toy):
        def load(self):
            raise DataError("row 3 is broken")

    with pytest.raises(DataError, match="row 3"):
        load_splits(Broken(), tmp_path)
    assert not [path for path in (tmp_path / "sources").iterdir() if path.is_dir()]
    assert len(load_splits(Toy(), tmp_path).train) == 2


class Streaming(Toy):
    def stream(self, scratch):
        write_pairs(scratch / "all.arrow", Toy().load().train)
        return Splits(open_pairs(scratch / "all.arrow"), Toy().load().dev)


def test_a_source_that_streams_is_not_loaded_and_leaves_no_scratch(tmp_path):
    source = Streaming()
    assert load_splits(source, tmp_path) == Toy().load() == streamed(source)
    assert source.loads == 0
    file = training_texts(tmp_path / "sources" / "toy-arrow")
    assert sorted(path.name for path in file.parent.iterdir()) == ["content.json", "dev.arrow", "train.arrow"]
    assert [row["answer"] for _, row in read_rows(file)] == ["ä\n1", "😀 2"]
