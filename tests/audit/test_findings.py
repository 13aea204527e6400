import pandas as pd
import pytest
from conftest import run_program

from crossrank.audit import findings
from crossrank.audit.findings import Audit, audit
from crossrank.data.miners.bm25 import BM25Miner
from crossrank.data.pairs import Ingredients, QAPairs, Splits
from crossrank.data.policy import Policy
from crossrank.data.prepared_pool import TrainingTexts, prepare_pool
from crossrank.data.sources.pydocs import PyDocs
from crossrank.errors import DataError


@pytest.fixture(scope="module")
def audited(smoke_run, tmp_path_factory):
    """The audit of the smoke run's data, with its own export as the teacher."""
    folder = tmp_path_factory.mktemp("audit")
    done = run_program(
        "src.audit", "experiment=smoke", f"cache_dir={smoke_run.cache}", f"hydra.run.dir={folder}",
        "audit.sample=40", "audit.sheet=25", "teacher=cross_encoder", f"teacher.path={smoke_run.folder}",
        f"audit.run={smoke_run.folder}",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stderr


def test_everything_that_an_audit_promises_is_written_and_shown(audited):
    folder, shown = audited
    page = (folder / "audit.md").read_text()
    for title in (
        "The pool", "Margins", "False negatives", "What the teacher prefers to the answer", "Duplicate documents",
        "Leaks", "With and without the touched queries",
    ):  # fmt: skip
        assert f"## {title}" in page
        assert title in shown
    negatives = pd.read_parquet(folder / "negatives.parquet")
    assert negatives["question_id"].nunique() == 40
    assert negatives["teacher"].between(0, 1).all()
    assert len(pd.read_csv(folder / "sheet.csv")) == 25
    assert {"leaks.csv", "leaks.parquet", "training_rows.npy"} <= {file.name for file in folder.iterdir()}


def test_bad_input_is_one_sentence_before_anything_is_looked_at(smoke_run, tmp_path):
    done = run_program(
        "src.audit", "experiment=smoke", f"cache_dir={smoke_run.cache}", f"hydra.run.dir={tmp_path / 'out'}",
        f"audit.run={tmp_path}",
    )  # fmt: skip
    assert done.returncode != 0
    assert "the folder of a run or of src.evaluate is wanted" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out" / "audit.md").exists()


def test_a_filled_sheet_is_read_back(audited, smoke_run, tmp_path):
    folder, _ = audited
    sheet = pd.read_csv(folder / "sheet.csv", dtype=str)
    sheet["relevant"] = ["1", *["0"] * 24]
    sheet.to_csv(tmp_path / "sheet.csv", index=False)
    texts = TrainingTexts(PyDocs(["stdlib"], dev_size=20, limit=200), smoke_run.cache)
    pool = prepare_pool(texts, BM25Miner(), Policy()).pool
    told = audit(Audit(texts, pool, Policy(), [], labels=tmp_path / "sheet.csv"), tmp_path / "out")
    (rates,) = (section for section in told if section.title == "False negatives")
    assert rates.rows[-1][0] == "a person labelled it relevant"
    assert (tmp_path / "out" / "audit.md").read_text().count("## ") == len(told) == 4


def test_documents_beyond_a_number_are_sampled_for_clusters(tmp_path, monkeypatch):
    answers = [f"the {i} of {i * i} stands alone" for i in range(30)] + [
        f"The {i} of {i * i} stands alone!" for i in range(30)
    ]
    pairs = QAPairs([f"question {i}" for i in range(60)], answers)

    class Given:
        def ingredients(self):
            return Ingredients({"kind": "given"}, {})

        def fingerprint(self):
            return self.ingredients().fingerprint

        def load(self):
            return Splits(pairs, QAPairs(["q"], ["a"]))

    texts = TrainingTexts(Given(), tmp_path)
    pool = prepare_pool(texts, BM25Miner(), Policy(1, rank_max=2)).pool
    asked = Audit(texts, pool, Policy(1, rank_max=2), [])
    (every,) = (section for section in audit(asked, tmp_path / "all") if section.title == "Duplicate documents")
    assert "60 of 60 documents stand in 30 groups" in every.note
    monkeypatch.setattr(findings, "MOST_CLUSTERED", 40)
    (some,) = (section for section in audit(asked, tmp_path / "some") if section.title == "Duplicate documents")
    assert " of 40 documents stand in " in some.note
    assert all(first.casefold() == last.casefold().rstrip("!") for _, first, last in some.rows)


def test_a_damaged_evaluation_is_named(tmp_path):
    (tmp_path / "evaluations").mkdir()
    (tmp_path / "evaluations" / "step=000000-dev.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(DataError, match=r"step=000000-dev\.parquet: not a readable parquet file"):
        audit(Audit(None, None, Policy(), [], run=tmp_path), tmp_path / "out")
    assert not (tmp_path / "out").exists()
