import shutil

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from crossrank.data.miners import embedding
from crossrank.data.miners.embedding import EmbeddingMiner
from crossrank.errors import AssetError

QUESTIONS = ["which cat", "which river", "stone music", "iron cloud paper", "who"]
DOCUMENTS = ["a cat sleeps", "the river runs", "music of stones", "paper cloud", "iron", "nobody knows", "who is who"]
POSITIVES = [np.int32([0]), np.int32([1, 4]), np.int32([2]), np.int32([3]), np.int32([5, 6])]


def search(miner: EmbeddingMiner, k: int):
    blocks = list(miner.search(QUESTIONS, DOCUMENTS, k, POSITIVES))
    return (
        np.concatenate([block.ids for block in blocks]),
        np.concatenate([block.scores for block in blocks]),
        [own for block in blocks for own in block.positive_scores],
    )


def cosines(folder) -> np.ndarray:
    model = SentenceTransformer(str(folder), device="cpu")
    a, b = (np.asarray(model.encode(texts), np.float64) for texts in (QUESTIONS, DOCUMENTS))
    return (a @ b.T) / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1)


@pytest.mark.parametrize("k", [3, 7, 9])
def test_candidates_are_the_nearest_documents_by_cosine(static_embedder, k):
    ids, scores, own = search(EmbeddingMiner(str(static_embedder)), k)
    wanted = cosines(static_embedder)
    found = min(k, len(DOCUMENTS))
    np.testing.assert_array_equal(ids[:, :found], np.argsort(-wanted, axis=1)[:, :found])
    np.testing.assert_allclose(scores[:, :found], -np.sort(-wanted, axis=1)[:, :found], atol=1e-6)
    assert (ids[:, found:] == -1).all()
    for row, positives in enumerate(POSITIVES):
        np.testing.assert_allclose(own[row], wanted[row, positives], atol=1e-6)


def test_blocks_and_batches_do_not_change_the_result(static_embedder, monkeypatch):
    whole = search(EmbeddingMiner(str(static_embedder)), 4)
    monkeypatch.setattr(embedding, "BLOCK", 2)
    parts = search(EmbeddingMiner(str(static_embedder), texts_per_batch=3), 4)
    np.testing.assert_array_equal(parts[0], whole[0])
    np.testing.assert_allclose(parts[1], whole[1], atol=1e-6)
    for got, wanted in zip(parts[2], whole[2], strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-6)


def test_the_fingerprint_is_that_of_the_weights_not_of_the_place_or_the_speed(static_embedder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(static_embedder, copy)
    before = EmbeddingMiner(str(static_embedder)).fingerprint()
    assert EmbeddingMiner(str(copy), texts_per_batch=7).fingerprint() == before
    weights = next(copy.rglob("*.safetensors"))
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(raw)
    assert EmbeddingMiner(str(copy)).fingerprint() != before


def test_an_embedder_with_other_settings_is_another_miner(static_embedder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(static_embedder, copy)
    settings = copy / "config_sentence_transformers.json"
    settings.write_text(settings.read_text().replace('"prompts": {', '"prompts": {"query": "ask: ", "x": "', 1))
    assert EmbeddingMiner(str(copy)).fingerprint() != EmbeddingMiner(str(static_embedder)).fingerprint()


def test_a_missing_embedder_is_named(tmp_path):
    miner = EmbeddingMiner(str(tmp_path / "none"))
    with pytest.raises(AssetError, match="no such folder"):
        miner.fingerprint()
    assert [str(asset) for asset in EmbeddingMiner("a/b", revision="c").assets()] == ["model a/b at revision c"]


def test_a_batch_must_hold_a_text():
    with pytest.raises(ValueError, match="texts_per_batch must be at least 1"):
        EmbeddingMiner("a/b", texts_per_batch=0)
