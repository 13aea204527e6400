import shutil

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from crossrank.data import cache
from crossrank.data.miners import embedding
from crossrank.data.miners.embedding import EmbeddingMiner
from crossrank.errors import AssetError, DataError

QUESTIONS = ["which cat", "which river", "stone music", "iron cloud paper", "who"]
DOCUMENTS = ["a cat sleeps", "the river runs", "music of stones", "paper cloud", "iron", "nobody knows", "who is who"]
POSITIVES = [np.int32([0]), np.int32([1, 4]), np.int32([2]), np.int32([3]), np.int32([5, 6])]


def search(miner: EmbeddingMiner, k: int, cache_dir=None):
    blocks = list(miner.search(QUESTIONS, DOCUMENTS, k, POSITIVES, 0, cache_dir))
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
    monkeypatch.setattr(embedding, "QUESTIONS_PER_BLOCK", 2)
    monkeypatch.setattr(embedding, "TEXTS_PER_CALL", 3)
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


@pytest.fixture
def encoded(monkeypatch):
    """Return the list that every text given to a model is added to."""
    texts = []
    for name in ("encode_query", "encode_document"):
        encode = getattr(SentenceTransformer, name)

        def counted(self, batch, *arguments, encode=encode, **options):
            texts.extend(text for text in batch if text != ".")
            return encode(self, batch, *arguments, **options)

        monkeypatch.setattr(SentenceTransformer, name, counted)
    return texts


def same(one, other):
    np.testing.assert_array_equal(one[0], other[0])
    np.testing.assert_array_equal(one[1], other[1])
    for a, b in zip(one[2], other[2], strict=True):
        np.testing.assert_array_equal(a, b)


def test_embeddings_are_cached_by_weights_texts_and_side(static_embedder, tmp_path, encoded):
    miner = EmbeddingMiner(str(static_embedder))
    uncached = search(miner, 4)
    encoded.clear()
    first = search(miner, 4, tmp_path)
    assert sorted(encoded) == sorted([*QUESTIONS, *DOCUMENTS])
    same(first, uncached)
    same(search(EmbeddingMiner(str(static_embedder), library="torch"), 4, tmp_path), uncached)
    same([x[:, :2] if i < 2 else x for i, x in enumerate(uncached)], search(miner, 2, tmp_path))
    assert len(encoded) == len(QUESTIONS) + len(DOCUMENTS)  # nothing was embedded again
    list(miner.search(QUESTIONS[:2], DOCUMENTS, 4, POSITIVES, 0, tmp_path))
    assert encoded[-2:] == QUESTIONS[:2]
    assert len(encoded) == len(QUESTIONS) + len(DOCUMENTS) + 2


def test_interrupted_embedding_goes_on_where_it_stopped(static_embedder, tmp_path, monkeypatch, encoded):
    monkeypatch.setattr(embedding, "TEXTS_PER_CALL", 2)
    monkeypatch.setattr(cache.Unfinished.__init__, "__defaults__", (0.0,))
    miner = EmbeddingMiner(str(static_embedder))
    whole = search(miner, 4, tmp_path / "whole")
    encoded.clear()
    add, calls = cache.Unfinished.add, []

    def killed(self, *arguments):
        add(self, *arguments)
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(cache.Unfinished, "add", killed)
    with pytest.raises(KeyboardInterrupt):
        search(miner, 4, tmp_path / "killed")
    assert encoded == DOCUMENTS[:4]
    same(search(miner, 4, tmp_path / "killed"), whole)
    assert encoded[4:] == [*DOCUMENTS[4:], *QUESTIONS]


def test_embeddings_of_another_shape_than_the_texts_are_refused(static_embedder, tmp_path):
    miner = EmbeddingMiner(str(static_embedder))
    search(miner, 4, tmp_path)
    for rows, width, message in ((3, 16, "not the vectors of 7 texts"), (7, 8, "8 dimensions and questions 16")):
        (file,) = (f for f in tmp_path.rglob("embeddings.npy") if len(np.load(f)) in (3, 7))
        np.save(file, np.eye(rows, width, dtype=np.float32))
        with pytest.raises(DataError, match=message):
            search(miner, 4, tmp_path)


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_an_embedding_that_is_not_finite_names_its_text(static_embedder, tmp_path, monkeypatch, broken):
    encode = SentenceTransformer.encode_document

    def breaking(self, texts, **options):
        vectors = encode(self, texts, **options)
        vectors[[text == "paper cloud" for text in texts]] = broken
        return vectors

    monkeypatch.setattr(SentenceTransformer, "encode_document", breaking)
    with pytest.raises(DataError, match="not finite for the document 'paper cloud'"):
        search(EmbeddingMiner(str(static_embedder)), 4, tmp_path)
    assert not [file for file in tmp_path.rglob("*") if file.is_dir() and not file.name.startswith((".", "emb"))]
