"""The program as a person calls it."""

import json
import shutil

import pandas as pd
import pytest
from conftest import run_program


def test_a_run_against_itself_and_its_first_stage(smoke_run, tmp_path):
    output = tmp_path / "with blanks" / "out"
    run = str(smoke_run.folder)
    done = run_program("src.compare", run, run, "first_stage", "metrics=[ndcg@10,map]", f"output='{output}'")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ndcg@10: smoke (2) and smoke do not differ on any of the" in done.stderr
    table = pd.read_parquet(output / "comparison.parquet")
    pairs = table[table["overall"] & table["against"].notna()].set_index(["metric", "system", "against"])
    same = pairs.loc[("ndcg@10", "smoke (2)", "smoke")]
    assert (same.difference, same.low, same.high, same.p, same.p_holm) == (0, 0, 0, 1, 1)
    assert (same.wins, same.losses) == (0, 0)
    best = json.loads((smoke_run.folder / "result.json").read_text())["best_step"]
    rows = pd.concat(map(pd.read_parquet, (smoke_run.folder / "evaluations").glob(f"step={best:06d}-*.parquet")))
    means = rows.groupby(["metric", "dataset"])[["value", "base_value"]].mean().groupby("metric").mean()
    for metric in ("ndcg@10", "map"):
        first = pairs.loc[(metric, "first_stage", "smoke")]
        assert first.difference == pytest.approx(means.loc[metric, "base_value"] - means.loc[metric, "value"])
        assert first.low <= first.difference <= first.high
    assert set(table["metric"]) == {"ndcg@10", "map"}
    assert (output / "comparison.md").read_text(encoding="utf-8").startswith("# Comparison")


def test_bad_input_is_one_sentence(smoke_run, tmp_path):
    run, less = str(smoke_run.folder), tmp_path / "less"
    shutil.copytree(smoke_run.folder / "evaluations", less)
    for file in less.glob("step=*.parquet"):
        rows = pd.read_parquet(file)
        rows[rows["query_id"] != rows["query_id"].iloc[0]].to_parquet(file, index=False)
    (tmp_path / "bm25.trec").write_text("q Q0 d 1 1.0 tag\n")
    cases = {
        (run,): "a comparison needs at least two systems",
        (): "systems: required and missing",
        (run, "nowhere"): "no such file or folder",
        (run, f"{run}/export"): "is a model: say what to evaluate it on with evaluators=..., or evaluate it first",
        (run, str(tmp_path / "bm25.trec")): "give them as qrels=FILE",
        (run, run, "metrics=[ndcg@5]"): "not every system has ndcg@5",
        (run, run, "names=[one]"): "names must be 2 different ones",
        (run, run, "pairs=some"): "pairs",
        (run, run, "confidence=95"): "confidence",
        (run, run, "metrcs=[map]"): "metrcs",
        (run, str(less)): "give common_only=true",
        (run, "systems=[b]"): "give them once",
    }
    for words, message in cases.items():
        done = run_program("src.compare", *words)
        assert message in done.stderr, words
        assert "Traceback" not in done.stderr, words
        assert done.returncode == (1 if "metrcs=[map]" in words else 2), words  # Hydra's own refusal of a key


def test_what_two_systems_share_can_be_compared(smoke_run, tmp_path):
    """A TREC run and an evaluation meet under the name of the qrels; the program runs in the person's folder."""
    (tmp_path / "eval").mkdir()
    rows = [("dl", f"q{i}", "trec_ndcg@10", 1.0, 0.5, "e") for i in range(4)]
    table = pd.DataFrame(rows, columns=["dataset", "query_id", "metric", "value", "base_value", "evaluator"])
    table.to_parquet(tmp_path / "eval" / "step=000000-e.parquet")
    (tmp_path / "dl.qrels").write_text("".join(f"q{i} 0 d 1\n" for i in range(3)))
    (tmp_path / "bm25.run").write_text("".join(f"q{i} Q0 {d} 0 {s} t\n" for i in range(3) for d, s in ("x2", "d1")))
    done = run_program("src.compare", "bm25.run", "eval", "qrels=dl.qrels", "common_only=true", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "eval: 3 of 4 queries are compared" in done.stderr
    assert "trec_ndcg@10: eval and bm25.run are not told apart: +0.3691" in done.stderr  # 1 - 1 / log2(3)
    assert not (tmp_path / "outputs").exists()
