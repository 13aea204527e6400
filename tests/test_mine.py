import json
import os
import signal
from functools import partial

import numpy as np
import program_server
import pytest
from conftest import ROOT, program_environment, run_program

from crossrank.data.cache import Unfinished
from crossrank.data.miners import embedding


def die_after(blocks):
    """Save every block, of 50 texts or questions, and have the process die after some."""
    embedding.QUESTIONS_PER_BLOCK = embedding.TEXTS_PER_CALL = 50
    Unfinished.__init__.__defaults__ = (0.0,)
    add, calls = Unfinished.add, []

    def counted(self, *arguments):
        add(self, *arguments)
        calls.append(self)
        if len(calls) == blocks:
            os.kill(os.getpid(), signal.SIGKILL)

    Unfinished.add = counted


def test_training_finds_the_pool_that_was_mined(tmp_path):
    cache = f"cache_dir={tmp_path}"
    done = run_program("src.mine", "experiment=smoke", cache)
    assert done.returncode == 0, done.stderr
    assert "an answer among the first 10" in done.stderr
    (pool,) = (tmp_path / "pools").glob("[!.]*")
    assert done.stderr.splitlines()[-1] == f"pool {pool}"
    assert json.loads(done.stdout)["pool"] == str(pool)
    before = (pool / "candidates.npy").stat().st_mtime_ns
    done = run_program("src.train", "experiment=smoke", cache, f"hydra.run.dir={tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr
    assert (pool / "candidates.npy").stat().st_mtime_ns == before
    assert "mined the 101 best" not in done.stderr + done.stdout


@pytest.fixture(scope="module")
def mining(tmp_path_factory, static_embedder):
    """Return the arguments of a mining of 200 questions, and the arrays of its pool when nothing happens to it."""
    folder = tmp_path_factory.mktemp("mining")
    rows = "".join(f"what is {i} and {i * 7},the {i} of {i * 7} is {i * i}\n" for i in range(220))
    (folder / "pairs.csv").write_text("question,answer\n" + rows)
    arguments = [
        "experiment=smoke", "~source.packages", "source=pairs", f"source.path={folder / 'pairs.csv'}",
        "miner=sentence_transformer", f"miner.path={static_embedder}", "policy.rank_max=20",
    ]  # fmt: skip
    done = run_program("src.mine", *arguments, f"cache_dir={folder / 'cache'}")
    assert done.returncode == 0, done.stderr
    return arguments, arrays(folder / "cache")


def arrays(cache):
    (pool,) = (cache / "pools").glob("[!.]*")
    return {file.name: np.load(file) for file in pool.glob("*.npy")}


@pytest.mark.parametrize(("blocks", "where"), [(2, "embeddings"), (10, "pools")])
def test_a_killed_mining_goes_on_where_it_stopped(tmp_path, mining, blocks, where):
    """200 questions and 200 documents in blocks of 50: 4 of the documents, 4 of the questions, 4 of the pool."""
    arguments, whole = mining
    words = ("src.mine", *arguments, f"cache_dir={tmp_path}")
    killed = program_server.call(words, ROOT, program_environment(), partial(die_after, blocks))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    (unfinished,) = (tmp_path / where).glob(".*.unfinished")
    assert '"done": 100' in (unfinished / "unfinished.json").read_text()
    embedded = {file: file.stat().st_mtime_ns for file in tmp_path.glob("embeddings/[!.]*/*.npy")}
    assert len(embedded) == {"embeddings": 0, "pools": 2}[where]
    done = run_program("src.mine", *arguments, f"cache_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert {file: file.stat().st_mtime_ns for file in embedded} == embedded
    assert not unfinished.exists()
    found = arrays(tmp_path)
    assert found.keys() == whole.keys()
    for name, wanted in whole.items():
        np.testing.assert_array_equal(found[name], wanted)


def test_bad_input_is_one_sentence(tmp_path):
    done = run_program("src.mine", "experiment=smoke", f"cache_dir={tmp_path}", "data.pool_depth=3")
    assert done.returncode != 0
    assert "raise it to policy.rank_max = 100" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())
