"""NanoBEIR against sentence-transformers' CrossEncoderNanoBEIREvaluator; both read one folder shaped like the hub's."""

from pathlib import Path
from types import SimpleNamespace
from zlib import crc32

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sentence_transformers.cross_encoder.evaluation import CrossEncoderNanoBEIREvaluator

from crossrank.errors import AssetError, DataError
from crossrank.evaluation import produced_keys
from crossrank.evaluation.nanobeir import NAMES, NanoBEIR

SETS = ("NanoMSMARCO", "NanoNQ", "NanoSciFact")
SUBSETS = ("corpus", "queries", "qrels", "bm25")


def rows_of(name):
    """60 documents, 7 queries with 1..3 judgements each, some of them not among the 30 candidates, one never found."""
    draws = np.random.default_rng(SETS.index(name))
    corpus = [{"_id": f"{name}-{i}", "text": f"text {name} {draws.integers(10**9)}"} for i in range(60)]
    queries = [{"_id": f"q{i}", "text": f"question {i} of {name}"} for i in range(7)]
    qrels, bm25 = [], []
    for i, query in enumerate(queries):
        order = draws.permutation(60)
        candidates = [corpus[d]["_id"] for d in order[:30]]
        relevant = [corpus[order[j]]["_id"] for j in draws.choice(45, draws.integers(1, 4), replace=False)]
        relevant = [corpus[order[50]]["_id"]] if i == 6 else relevant
        qrels += [{"query-id": query["_id"], "corpus-id": d} for d in [*relevant, relevant[0]]]  # one stands twice
        bm25.append({"query-id": query["_id"], "corpus-ids": candidates})
    return {"corpus": corpus, "queries": queries, "qrels": qrels, "bm25": bm25}


def write_hub_folder(folder, change=lambda rows: None):
    lines = ["---", "configs:"]
    tables = {name: rows_of(name) for name in SETS}
    for subset in SUBSETS:
        lines += [f"- config_name: {subset}", "  data_files:"]
        for name, tables_of in tables.items():
            change(tables_of)
            file = Path(subset) / f"{name}-00000-of-00001.parquet"
            (folder / subset).mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.Table.from_pylist(tables_of[subset]), folder / file)
            lines += [f"  - split: {name}", f"    path: {file}"]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]))
    return folder


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    return write_hub_folder(tmp_path_factory.mktemp("hub") / "NanoBEIR-en")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def score(pairs):
    """Depends on both texts and has no ties: sentence-transformers keeps the positives in a set, in no fixed order."""
    return np.asarray([crc32(f"{question} {text}".encode()) for question, text in pairs], np.float64)


MODEL = SimpleNamespace(
    predict=lambda pairs, **options: score([tuple(pair) for pair in pairs]),
    model_card_data=SimpleNamespace(set_evaluation_metrics=lambda *args: None),
)


@pytest.mark.parametrize(
    ("names", "options"),
    [
        (["msmarco", "nq", "scifact"], {}),
        (["NQ", "msmarco"], {"rerank_k": 20, "always_rerank_positives": False}),
        (["scifact"], {"rerank_k": 5, "at_k": 3}),
    ],
)
def test_equals_sentence_transformers(hub, names, options):
    evaluator = NanoBEIR(names, path=str(hub), **options)
    reference = CrossEncoderNanoBEIREvaluator(names, dataset_id=str(hub), write_csv=False, **options)
    expected = reference(MODEL)
    means = evaluator(score).means()
    found = {}
    for (dataset, metric), row in means.iterrows():
        if metric.startswith("trec_"):
            continue
        prefix = reference.name if dataset == "mean" else dataset
        found |= {f"{prefix}_{metric}": row["value"], f"{prefix}_base_{metric}": row["base_value"]}
    assert found == pytest.approx(expected, abs=1e-12)  # the same names, too
    assert 0 < found[f"{reference.name}_base_map"] < 1


def test_names_are_those_of_sentence_transformers():
    evaluator = NanoBEIR(["nfcorpus", "MSMARCO"], rerank_k=50)
    assert evaluator.datasets == ["NanoNFCorpus_R50", "NanoMSMARCO_R50"]
    keys = produced_keys({"nanobeir": NanoBEIR(["nq"])})
    assert "eval/nanobeir/NanoNQ_R100/ndcg@10" in keys
    assert "eval/nanobeir/mean/ndcg@10" in keys


def test_all_thirteen_names_are_known():
    from sentence_transformers.cross_encoder.evaluation.nano_beir import DATASET_NAME_TO_HUMAN_READABLE

    assert NAMES == DATASET_NAME_TO_HUMAN_READABLE


def test_nothing_is_loaded_before_prepare(monkeypatch):
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **options: pytest.fail("loaded"))
    evaluator = NanoBEIR(["nq"], path="sentence-transformers/NanoBEIR-en", revision="abc")
    (asset,) = evaluator.assets()
    assert (asset.kind, asset.path, asset.revision) == ("dataset", "sentence-transformers/NanoBEIR-en", "abc")
    assert evaluator.datasets == ["NanoNQ_R100"]


def test_a_folder_that_is_not_there_is_an_asset_error(tmp_path):
    with pytest.raises(AssetError, match="no such folder"):
        NanoBEIR(["nq"], path=str(tmp_path / "nowhere")).prepare()


def test_a_wrong_column_is_named(tmp_path):
    def rename(rows):
        rows["queries"] = [{"id": row.get("_id", row.get("id")), "text": row["text"]} for row in rows["queries"]]

    folder = write_hub_folder(tmp_path / "hub", rename)
    with pytest.raises(DataError, match="queries: columns '_id' and 'text' are wanted, got"):
        NanoBEIR(["nq"], path=str(folder)).prepare()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"names": []}, "names must be some of .*got none"),
        ({"names": ["nq", "nqq"]}, r"got \['nqq'\]"),
        ({"names": ["nq"], "rerank_k": 0}, "rerank_k"),
        ({"names": ["nq"], "at_k": 0}, "at_k"),
    ],
)
def test_impossible_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        NanoBEIR(**options)
