import pytest
from made_runs import write_run, write_sweep

from crossrank.analysis.run_view import view
from crossrank.analysis.sweeps import SweepFolder
from crossrank.errors import DataError
from crossrank.reports import write_report, write_run_report, write_sweep_report


def test_a_page_lies_in_its_folder_and_is_replaced_whole(tmp_path):
    folder = write_run(tmp_path / "run")
    (folder / "report.html").write_text("old")
    assert write_run_report(view(folder)) == folder / "report.html"
    assert (folder / "report.html").read_text(encoding="utf-8").endswith("</html>\n")
    assert not list(folder.glob(".report*"))


def test_a_run_and_a_sweep_are_told_apart(tmp_path):
    run, sweep = write_run(tmp_path / "run", finished=False), write_sweep(tmp_path / "sweep")
    assert "has not finished" in write_report(run).read_text(encoding="utf-8")
    assert write_report(sweep) == write_sweep_report(SweepFolder(sweep)) == sweep / "report.html"
    assert write_report(run, tmp_path / "new" / "page.html") == tmp_path / "new" / "page.html"
    with pytest.raises(DataError, match=r"neither a run \(no metrics\.jsonl\) nor a sweep"):
        write_report(tmp_path)


def test_where_it_cannot_be_written_is_said(tmp_path):
    run = view(write_run(tmp_path / "run", finished=False))
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"file/x\.html: the page cannot be written"):
        write_run_report(run, tmp_path / "file" / "x.html")
