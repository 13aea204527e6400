import json

import pandas as pd
from made_runs import write_bare_run, write_run

from crossrank.analysis.run_view import view
from crossrank.audit.leaks import TOUCHED_COLUMNS, Leaks
from crossrank.card.evaluated import evaluation_parts, parity, with_gain


def test_a_table_has_a_column_a_dataset_and_the_gain_in_brackets(tmp_path):
    run = view(write_run(tmp_path / "run"))
    (table,) = evaluation_parts(run, run.run.path / "export")["tables"]
    header, _, *lines = table["table"].splitlines()
    assert header == "| metric | one | two | mean |"
    (main,) = [line for line in lines if "ndcg@10" in line]
    cells = [cell.strip().strip("*") for cell in main.strip("|").split("|")]
    rows = run.run.evaluations
    rows = rows[(rows["step"] == run.step) & (rows["metric"] == "ndcg@10")]
    for name, shown in zip(("one", "two"), cells[1:3], strict=True):
        mine = rows[rows["dataset"] == name]
        value, gain = mine["value"].mean(), (mine["value"] - mine["base_value"]).mean()
        assert shown == f"{value:.4f} ({gain:+.4f})"
    assert main.count("**") == 8
    assert with_gain(next(r for r in run.summaries["dev"] if r.metric == "map")) in lines[0]


def test_the_headline_says_how_sure_it_is_and_against_what(tmp_path):
    run = view(write_run(tmp_path / "run"))
    row = run.headline
    said = evaluation_parts(run, run.run.path / "export")["headline"]
    assert f"ndcg@10 {row.after.mean:.4f} [{row.after.low:.4f}, {row.after.high:.4f}]" in said
    assert f"a gain of {row.gain.mean:+.4f}" in said
    nothing = view(write_bare_run(tmp_path / "other"))
    assert "not known" in evaluation_parts(nothing, tmp_path)["headline"]


def test_touched_queries_are_counted_and_left_out(tmp_path):
    run = view(write_run(tmp_path / "run"))
    touched = [["one", "q3", "question", "equal", 1.0, 1, 1, "", "x", 0, "x"]]
    Leaks({"one": 14, "two": 14}, pd.DataFrame(touched, columns=TOUCHED_COLUMNS), pd.Series([0]).to_numpy()).write(
        run.run.path / "leaks"
    )
    said, counts, metrics = evaluation_parts(run, run.run.path / "export")["leaks"]
    assert said.startswith("1 of 28 evaluated queries")
    assert "| one | 14 | 1 | 0 | 0 | 0 | 0 | 0 | 1 |" in counts
    rows = run.run.evaluations
    rows = rows[(rows["step"] == run.step) & (rows["metric"] == "ndcg@10") & (rows["dataset"] == "one")]
    without = rows.loc[rows["query_id"] != "q3", "value"].mean()
    (line,) = [line for line in metrics.splitlines() if line.startswith("| one |")]
    assert f"| {without:.4f} [" in line
    unknown = view(write_run(tmp_path / "other"))
    assert "Not looked at" in evaluation_parts(unknown, tmp_path)["leaks"][0]


def test_what_speaks_against_the_model_is_said(tmp_path):
    run = view(write_run(tmp_path / "run", strength=-3.0))
    hurt, missed = evaluation_parts(run, run.run.path / "export")["weaknesses"]
    rows = run.run.evaluations
    rows = rows[(rows["step"] == run.step) & (rows["metric"] == "ndcg@10")]
    count = int((rows["value"] - rows["base_value"]).round(9).lt(0).sum())
    assert f"worse than the first stage for {count} of 28 queries" in hurt
    assert "1.0000 [1.0000, 1.0000] on one and 1.0000 [1.0000, 1.0000] on two" in missed


def test_how_far_other_libraries_are_from_the_model_is_a_table(tmp_path):
    assert parity(tmp_path) is None
    lines = [{"consumer": "transformers", "version": "5.24.0", "pairs": 20, "largest_gap": 1.25e-7, "tolerance": 1e-5}]
    (tmp_path / "parity.json").write_text(json.dumps(lines))
    found = parity(tmp_path)
    assert found.header == ["consumer", "version", "pairs", "largest gap", "tolerance"]
    assert found.rows == [["transformers", "5.24.0", "20", "1.2e-07", "1.0e-05"]]
