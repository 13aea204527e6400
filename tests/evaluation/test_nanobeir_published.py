"""The real NanoBEIR, where the hub's cache holds it, against the figures that sentence-transformers publishes."""

import logging

import numpy as np
import pytest
from conftest import ROOT
from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError
from omegaconf import OmegaConf

from crossrank.evaluation import nanobeir
from crossrank.evaluation.nanobeir import NanoBEIR
from crossrank.evaluation.reranking import RerankingTask

CONF = OmegaConf.load(ROOT / "conf" / "evaluators" / "nanobeir.yaml").nanobeir
BASE = {  # MAP, MRR@10, NDCG@10 of BM25, and the pairs of 50 queries: docstring of its evaluator, version 6.2
    "NanoMSMARCO": (0.4896, 0.4775, 0.5404, 5000),
    "NanoNFCorpus": (0.2610, 0.4998, 0.3250, 7160),
    "NanoNQ": (0.4196, 0.4267, 0.5006, 5005),
}


def is_cached():
    try:
        snapshot_download(CONF.path, repo_type="dataset", revision=CONF.revision, local_files_only=True)
    except (LocalEntryNotFoundError, OSError, ValueError):
        return False
    return True


@pytest.mark.skipif(not is_cached(), reason="NanoBEIR-en is not in the hub's cache")
def test_base_values_are_the_published_ones():
    evaluator = NanoBEIR(["msmarco", "nfcorpus", "nq"], CONF.path, CONF.revision)
    means = evaluator(lambda pairs: np.zeros(len(pairs), np.float32)).means()["base_value"]
    for split, (average, reciprocal, ndcg, _) in BASE.items():
        found = [means[f"{split}_R100", metric] for metric in ("map", "mrr@10", "ndcg@10")]
        assert found == pytest.approx([average, reciprocal, ndcg], abs=6e-5)
    assert means["mean", "ndcg@10"] == pytest.approx(0.4554, abs=6e-5)
    for task in evaluator.tasks:
        expected = BASE[task.name.removesuffix("_R100")][3]
        assert len(task.pairs) == pytest.approx(expected, rel=0.002)  # published as means of one digit


def test_the_published_ndcg_is_what_the_evaluator_compares_with():
    assert {split: values[2] for split, values in BASE.items()} == nanobeir.PUBLISHED


@pytest.mark.parametrize(("relevant", "warned"), [("d1", True), ("d0", False)])
def test_data_with_other_base_values_are_warned_of(relevant, warned, monkeypatch, caplog):
    """Of one query whose first candidate is relevant, or its second, the NDCG is 1 or 0.63."""
    texts = {"d0": "a", "d1": "b"}
    task = RerankingTask("NanoNQ_R100", {"q": "x"}, texts, {"q": ["d0", "d1"]}, {"q": {relevant: 1}})
    monkeypatch.setattr(nanobeir, "PUBLISHED", {"NanoNQ": 1.0})
    monkeypatch.setattr(NanoBEIR, "_task", lambda self, split: task)
    with caplog.at_level(logging.WARNING):
        NanoBEIR(["nq"]).prepare()
        NanoBEIR(["nq"], path="another/language").prepare()
    assert caplog.text.count("where sentence-transformers publishes 1.0000") == int(warned)
