import pytest

from crossrank.data.pairs import QAPairs, Splits
from crossrank.data.splits import load_splits
from crossrank.errors import DataError


class Toy:
    loads = 0

    def assets(self):
        return ()

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
