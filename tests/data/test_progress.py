import logging

import pytest

from crossrank.data import progress as module
from crossrank.data.progress import progress


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def told(caplog):
    return [record.getMessage() for record in caplog.records if record.name == module.__name__]


def test_a_log_hears_every_half_minute_how_long_it_will_still_take(clock, caplog):
    """100 a second, 400 of them done before: 12,000 in all leave 11,600, of which 6,000 are done after a minute."""
    caplog.set_level(logging.INFO)
    with progress("mining", 12_000, done=400) as advance:
        for _ in range(60):
            clock[0] += 1
            advance(100)
    assert told(caplog) == [
        "mining: 3400 of 12000, about 1 min left",
        "mining: 6400 of 12000, about 1 min left",
    ]


def test_what_was_done_before_does_not_make_it_look_fast(clock, caplog):
    with progress("mining", 20_000, done=10_000) as advance:
        clock[0] += 60
        advance(100)
    assert told(caplog) == ["mining: 10100 of 20000, about 99 min left"]


def test_the_end_is_not_told_and_nothing_is_divided_by_zero(clock, caplog):
    with progress("mining", 10) as advance:
        clock[0] += 100
        advance(0)
        advance(10)
    assert told(caplog) == []


def test_a_terminal_gets_a_bar_with_the_time_left(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    with progress("mining", 10) as advance:
        advance(4)
        module.time.sleep(0.25)
    assert "4/10" in capsys.readouterr().err


def test_what_goes_on_within_something_else_shares_its_display(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    with progress("training", 6) as outer:
        outer(2, "loss 0.5")
        with progress("scoring", 40) as inner:
            inner(30)
            module._BARS._display.refresh()
        outer(1)
        module._BARS._display.refresh()
    shown = capsys.readouterr().err
    assert "30/40" in shown
    assert "3/6" in shown
    assert module._BARS._display is None


def test_a_bar_that_an_error_interrupts_is_taken_away():
    with pytest.raises(KeyError), progress("mining", 6):
        raise KeyError
    assert module._BARS._display is None


def test_without_lines_a_log_hears_nothing(clock, caplog):
    caplog.set_level(logging.INFO)
    with progress("training", 100, lines=False) as advance:
        clock[0] += 60
        advance(10)
    assert told(caplog) == []
