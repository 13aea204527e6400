"""A tiny model is trained, and averaged once more from copies of its weights."""

import lightning.pytorch as pl
import pytest
import torch
from test_evaluation_callback import MONITOR, Stream, Toy, _fit, _module, _same

from crossrank.callbacks.averaging import Averaging
from crossrank.callbacks.evaluation import PeriodicEvaluation
from crossrank.callbacks.step_rng import StepKeyedRNG
from crossrank.data.batch import collate
from crossrank.training.averages import Ema, LastEvaluations
from crossrank.training.trainer import TrainerSpec

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec"),
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended"),
]


def _callbacks(folder):
    evaluation = PeriodicEvaluation({"toy": Toy()}, MONITOR, str(folder), 2)
    return [evaluation, Averaging(Ema(0.5)), Averaging(LastEvaluations(2))]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_averages_are_those_of_the_weights_after_optimizer_steps(accumulate, encoder, tmp_path):
    callbacks = _callbacks(tmp_path)
    _, module, weights = _fit(encoder, tmp_path, 7, callbacks, accumulate)
    trained = dict(module.named_parameters())
    expected = {name: weights.at[1][name].double() for name in trained}
    for step in range(2, 8):
        decay = min(0.5, step / (step + 9))  # (1 + n) / (10 + n) of the n = step - 1 updates before
        expected = {n: decay * value + (1 - decay) * weights.at[step][n].double() for n, value in expected.items()}
    ema, mean = (callback.average for callback in callbacks[1:])
    assert (ema.updates, mean.updates) == (7, 2)
    assert ema.weights.keys() == mean.weights.keys() == trained.keys()
    for name, value in expected.items():
        torch.testing.assert_close(ema.weights[name].double(), value, rtol=1e-5, atol=1e-7)
        both = (weights.at[6][name] + weights.at[7][name]) / 2  # the last evaluated steps of 2, 4, 6 and 7
        torch.testing.assert_close(mean.weights[name], both, rtol=1e-5, atol=1e-7)


def test_training_is_bit_identical_with_and_without_averages(encoder, tmp_path):
    runs = []
    for name, callbacks in (("without", []), ("with", _callbacks(tmp_path / "with"))):
        (tmp_path / name).mkdir()
        runs.append(_fit(encoder, tmp_path / name, 4, callbacks, dropout=0.3)[2].at)
    assert all(_same(runs[0][step], runs[1][step]) for step in range(5))


class SavedAt(pl.Callback):
    """Saves the state after a step."""

    def __init__(self, step, file):
        self.step, self.file = step, file

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.file)


def _train(encoder, folder, state=None):
    """Train six steps, from a saved state if there is one; save the one after step 5."""
    callbacks = [StepKeyedRNG(3), *_callbacks(folder), SavedAt(5, folder / "state.ckpt")]
    trainer = TrainerSpec("cpu", precision="32-true").build(6, callbacks, [], folder)
    tokens = encoder.encode(["a question", "its document", "another"])
    batches = [collate(encoder, [(tokens[0], tokens[i]) for i in (1, 2)], [1, 0])] * 6
    trainer.fit(_module(0.2), datamodule=Stream(encoder, batches, folder), ckpt_path=state, weights_only=True)
    return [callback.average for callback in callbacks if isinstance(callback, Averaging)]


def test_an_average_is_part_of_a_saved_state_and_goes_on_bit_for_bit(encoder, tmp_path):
    whole = _train(encoder, tmp_path)
    resumed = _train(encoder, tmp_path, tmp_path / "state.ckpt")
    for expected, found in zip(whole, resumed, strict=True):
        assert found.updates == expected.updates > 1
        assert _same(expected.weights, found.weights)


def test_two_averages_of_one_kind_keep_their_states_apart():
    first, second = Averaging(Ema(0.9)), Averaging(Ema(0.99))
    assert first.state_key != second.state_key == Averaging(Ema(0.99)).state_key
