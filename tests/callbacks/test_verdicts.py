"""A fake evaluator says how good the average is; the weights tell which ones were kept."""

import json

import pandas as pd
import pytest
import torch
from test_evaluation_callback import MONITOR, PAIRS, Toy, _fit, _same

from crossrank.callbacks.averaging import Averaging
from crossrank.callbacks.evaluation import PeriodicEvaluation
from crossrank.callbacks.verdicts import best_of, judge, keep_better
from crossrank.data.batch import collate
from crossrank.training.averages import Ema, LastEvaluations
from crossrank.training.checkpoints import read_checkpoint

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec"),
]
RAW = [0.1, 0.5, 0.4]  # before, at step 2 and at step 3


class Trained:
    """Three steps, the best of them the second, and what became of the averages."""

    def __init__(self, encoder, folder, averages, values):
        self.toy = Toy([*RAW, *values])
        self.evaluation = PeriodicEvaluation({"toy": self.toy}, MONITOR, str(folder), 2)
        callbacks = [self.evaluation, *averages.values()]
        self.trainer, self.module, self.weights = _fit(encoder, folder, 3, callbacks)
        self.verdicts = judge(averages, self.evaluation, self.trainer, self.module)
        self.step = keep_better(self.verdicts, self.evaluation, self.trainer.loggers, self.module)

    @property
    def kept(self):
        return dict(self.module.named_parameters())


def _logged(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_an_average_that_is_better_is_kept_under_a_step_of_its_own(encoder, tmp_path, caplog):
    ema = Averaging(Ema(0.5))
    run = Trained(encoder, tmp_path, {"ema": ema}, [0.625])
    assert run.step == run.evaluation.best_step == 4
    assert run.evaluation.best_value == pytest.approx(0.625)
    assert _same(run.kept, ema.average.weights)
    saved = read_checkpoint(tmp_path / "checkpoints" / "averaged.ckpt")
    assert saved["global_step"] == 4
    assert _same({name: saved["state_dict"][name] for name in ema.average.weights}, ema.average.weights)
    tokens = [tuple(encoder.encode(list(pair))) for pair in PAIRS]
    with torch.no_grad():
        torch.testing.assert_close(
            torch.from_numpy(run.toy.scores[3]), run.module.model.eval()(collate(encoder, tokens))
        )

    (verdict,) = run.verdicts
    assert (verdict.best_step, verdict.step, verdict.updates, verdict.better) == (2, 4, 3, True)
    assert (verdict.found.value, verdict.found.against) == (pytest.approx(0.625), pytest.approx(0.5))
    assert verdict.found.p == 2 / 2**4  # all four queries are better
    assert verdict.facts()["name"] == "ema"
    assert "ema (Ema(decay=0.5), 3 updates) has 0.6250, step 2 0.5000: +0.1250" in caplog.text
    assert "p = 0.125, of 4 queries; the average is exported" in caplog.text
    for folder in ("", "averaged/ema/"):
        rows = pd.read_parquet(tmp_path / "evaluations" / folder / "step=000004-toy.parquet")
        assert set(rows["step"]) == {4}
        assert rows["value"].mean() == pytest.approx(0.625)
        assert (tmp_path / "evaluations" / folder / "scores" / "step=000004-toy.parquet").is_file()
    assert [(line["step"], round(line[MONITOR], 3)) for line in _logged(tmp_path)] == [
        (0, 0.1), (2, 0.5), (3, 0.4), (4, 0.625),
    ]  # fmt: skip


@pytest.mark.parametrize("value", [0.5, 0.375])
def test_one_that_is_not_better_leaves_the_best_step(value, encoder, tmp_path, caplog):
    run = Trained(encoder, tmp_path, {"ema": Averaging(Ema(0.5))}, [value])
    assert run.step == run.evaluation.best_step == 2
    assert run.evaluation.best_value == pytest.approx(0.5)
    assert _same(run.kept, {name: run.weights.at[2][name] for name in run.kept})
    assert best_of(run.verdicts) is None
    assert "; it is not exported" in caplog.text
    assert not (tmp_path / "evaluations" / "step=000004-toy.parquet").exists()
    assert (tmp_path / "evaluations" / "averaged" / "ema" / "step=000004-toy.parquet").is_file()
    assert [line["step"] for line in _logged(tmp_path)] == [0, 2, 3]


@pytest.mark.parametrize(("values", "winner"), [([0.625, 0.75], "mean"), ([0.75, 0.625], "ema")])
def test_of_two_the_better_is_kept(values, winner, encoder, tmp_path):
    averages = {"ema": Averaging(Ema(0.5)), "mean": Averaging(LastEvaluations(2))}
    run = Trained(encoder, tmp_path, averages, values)
    assert best_of(run.verdicts).name == winner
    assert _same(run.kept, averages[winner].average.weights)
    assert run.evaluation.best_value == pytest.approx(0.75)


def test_one_that_nothing_has_gone_into_is_left_out(encoder, tmp_path, caplog):
    evaluation = PeriodicEvaluation({"toy": Toy(RAW)}, MONITOR, str(tmp_path), 2)
    trainer, module, _ = _fit(encoder, tmp_path, 3, [evaluation])
    assert judge({"mean": Averaging(LastEvaluations(2))}, evaluation, trainer, module) == []
    assert "mean: the training ended before the first of the steps that it averages" in caplog.text
    assert keep_better([], evaluation, trainer.loggers, module) == 2
