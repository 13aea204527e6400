import pytest

from crossrank.data.miners.none import NoMiner
from crossrank.errors import DataError


def test_it_needs_nothing_and_finds_nothing():
    assert NoMiner().assets() == ()
    assert NoMiner().fingerprint() == NoMiner().fingerprint()
    with pytest.raises(DataError, match="miner=none finds no candidates; choose a miner that does"):
        NoMiner().search(["q"], ["d"], 1, [])
