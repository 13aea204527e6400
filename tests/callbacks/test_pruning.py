import json
from types import SimpleNamespace

import pytest
import torch
from optuna.distributions import FloatDistribution

from crossrank.callbacks.evaluation import PeriodicEvaluation
from crossrank.callbacks.pruning import Pruning
from crossrank.training.study import open_study

MONITOR = "eval/dev/dev/ndcg@10"
SPACE = {"optimizer.lr": FloatDistribution(0, 1)}


class Evaluated(PeriodicEvaluation):
    """Stands for an evaluation that finds what it is told."""

    def __init__(self):
        self.monitor, self.last_step = MONITOR, -1


class Trainer:
    """What of Lightning's the callback asks."""

    is_global_zero, max_steps = True, 10

    def __init__(self):
        self.callbacks, self.callback_metrics, self.should_stop, self.global_step = [Evaluated()], {}, False, 0
        self.strategy = SimpleNamespace(reduce_boolean_decision=lambda decision, all: decision)


def train(study, values, folder):
    """Return the callback and the trainer after a job whose evaluations, by step, find these values."""
    trial = study.ask(SPACE)
    job = folder / f"job-{trial.number}"
    job.mkdir()
    words = [f"{key}={value}" for key, value in trial.params.items()]
    (job / "origin.json").write_text(json.dumps({"overrides": words}))
    callback, trainer = Pruning(str(job)), Trainer()
    callback.on_train_start(trainer, None)
    for step in range(1, trainer.max_steps + 1):
        trainer.global_step = step
        if step in values:
            trainer.callbacks[0].last_step = step
            trainer.callback_metrics[MONITOR] = torch.tensor(values[step])
        callback.on_train_batch_end(trainer, None, None, None, step - 1)
        if trainer.should_stop:
            break
    return callback, trainer, trial


@pytest.fixture
def study(tmp_path):
    """Five jobs that reached 0.4 to 0.8 at step 4 and 0.5 more at step 10."""
    study = open_study(tmp_path, "sqlite")
    for i in range(5):
        callback, _, trial = train(study, {4: 0.4 + 0.1 * i, 10: 0.9 + 0.1 * i}, tmp_path)
        assert callback.pruned_at is None
        study.tell(trial.number, 0.9 + 0.1 * i)
    return study


def test_the_study_is_told_of_every_evaluation_at_its_step(study):
    told = [trial.intermediate_values for trial in study.trials]
    assert [list(values) for values in told] == [[4, 10]] * 5
    assert [values[4] for values in told] == pytest.approx([0.4, 0.5, 0.6, 0.7, 0.8])


def test_a_job_that_falls_behind_stops_there(study, tmp_path):
    callback, trainer, _ = train(study, {4: 0.55, 10: 2.0}, tmp_path)  # the median at step 4 is 0.6
    assert (callback.pruned_at, trainer.should_stop, trainer.global_step) == (4, True, 4)


def test_a_job_that_keeps_up_is_trained_to_its_end(study, tmp_path):
    callback, trainer, _ = train(study, {4: 0.65, 10: 0.95}, tmp_path)  # at the last step nothing is left to prune
    assert (callback.pruned_at, trainer.should_stop, trainer.global_step) == (None, False, 10)


def test_a_run_of_no_search_is_left_alone(tmp_path):
    callback, trainer = Pruning(str(tmp_path / "run")), Trainer()
    callback.on_train_start(trainer, None)
    trainer.callbacks[0].last_step = trainer.global_step = 4
    trainer.callback_metrics[MONITOR] = torch.tensor(0.0)
    callback.on_train_batch_end(trainer, None, None, None, 3)
    assert callback.pruned_at is None
    assert not trainer.should_stop
