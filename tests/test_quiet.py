import io
import logging
import sys
import warnings

import pytest

from crossrank.quiet import Said, quieten


def test_others_are_heard_when_they_warn_and_we_always(caplog):
    with warnings.catch_warnings():
        quieten()
    with caplog.at_level(logging.INFO):
        logging.getLogger("httpx").info("GET")
        logging.getLogger("httpx").warning("slow")
        logging.getLogger("crossrank.run").info("training")
    assert [record.getMessage() for record in caplog.records] == ["slow", "training"]


def test_what_is_meant_to_be_so_is_not_warned_of():
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        quieten()
        warnings.warn("The 'train_dataloader' does not have many workers which may be a bottleneck.", stacklevel=1)
        warnings.warn("another", stacklevel=1)
    assert [str(one.message) for one in heard] == ["another"]
    with pytest.raises(UserWarning, match="another"):  # pytest's own filters stand again
        warnings.warn("another", stacklevel=1)


def test_lines_go_to_what_standard_error_is_when_they_are_said(monkeypatch):
    """A bar puts itself in its place while it is drawn."""
    handler, now = Said(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", now)
    handler.emit(logging.makeLogRecord({"msg": "a line"}))
    assert now.getvalue() == "a line\n"
