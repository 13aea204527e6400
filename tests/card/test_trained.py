import json

from made_runs import write_bare_run, write_run

from crossrank.analysis.run_view import view
from crossrank.card import trained
from crossrank.card.trained import training_log, training_parts
from crossrank.training.tracking import JsonlLogger


def lines(table):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def test_the_log_has_a_row_a_step_and_the_exported_one_is_bold(tmp_path):
    run = view(write_run(tmp_path / "run"))
    found = training_log(run, 16)
    header, _, *rows = lines(found["table"])
    assert header == ["epoch", "step", "training loss", "dev one ndcg@10", "dev two ndcg@10", "dev mean ndcg@10"]
    assert [row[1].strip("*") for row in rows] == ["0", "4", "8"]
    bold = [row for row in rows if row[1].startswith("**")]
    assert [row[1] for row in bold] == [f"**{run.step}**"]
    assert [row[0].strip("*") for row in rows] == ["0.0000", "0.2500", "0.5000"]
    assert [row[2].strip("*") for row in rows] == ["1.0000", "0.2000", "0.1111"]
    wide = run.run.wide_metrics
    value, base = (wide.at[4, f"eval/dev/one/{name}ndcg@10"] for name in ("", "base_"))
    assert rows[1][3].strip("*") == f"{value:.4f} ({value - base:+.4f})"
    assert not found["folded"]


def test_an_average_that_was_exported_stands_under_its_name(tmp_path):
    result = {"best_step": 9, "averages": [{"name": "ema", "exported": True}]}
    found = training_log(view(write_run(tmp_path / "run", steps=(0, 4, 9), result=result)), 16)
    *_, last = lines(found["table"])
    assert last[:3] == ["**-**", "**ema**", "**0.1000**"]


def test_a_long_log_is_folded_and_one_that_is_longer_still_thinned(tmp_path, monkeypatch):
    folder = write_run(tmp_path / "run")
    logger = JsonlLogger(folder)
    for step in range(9, 159):
        logger.log_metrics({"train/loss": 0.1}, step)
    assert training_log(view(folder), None)["folded"]
    monkeypatch.setattr(trained, "MOST_ROWS", 10)
    _, _, *rows = lines(training_log(view(folder), None)["table"])
    assert 10 <= len(rows) <= 20
    assert {row[1].strip("*") for row in rows if row[3] != "-"} == {"0", "4", "8"}
    assert {row[0].strip("*") for row in rows} == {"-"}


CONFIG = {
    "seed": 7,
    "loss": {"_target_": "crossrank.losses.lambda_loss.LambdaLoss", "weighting": "lambdarank"},
    "optimizer": {"_target_": "torch.optim.AdamW", "_partial_": True, "lr": 1e-3, "betas": [0.9, 0.999], "eps": 1e-6},
    "source": {"_target_": "crossrank.data.sources.pairs.Pairs", "path": "/home/somebody/pairs.jsonl"},
    "miner": {"_target_": "not_here.Miner", "words": "a`b"},
}


def test_settings_are_those_that_the_constructor_would_not_take_by_itself(tmp_path):
    folder = write_run(tmp_path / "run")
    (folder / "config.yaml").write_text(json.dumps(json.loads((folder / "config.yaml").read_text()) | CONFIG))
    found = training_parts(view(folder), {}, folder / "export")
    assert found["chosen"] == [
        '`loss.weighting`: "lambdarank"', "`optimizer.lr`: 0.001", "`optimizer.eps`: 1e-06", '`miner.words`: "a\\`b"',
        "`seed`: 7",
    ]  # fmt: skip
    assert found["loss"]["name"] == "LambdaLoss"
    assert found["loss"]["sources"].startswith("Wang et al., The LambdaLoss Framework")
    assert found["negatives"]["source"] == 'Pairs {"path": "pairs.jsonl"}'
    assert "`" not in found["negatives"]["miner"]
    assert "somebody" not in json.dumps(found)


def test_machine_speed_and_command_are_told_and_secrets_are_not(tmp_path):
    folder = write_run(tmp_path / "run")
    facts = {
        "machine": {"cpu": "A CPU", "threads": 4, "memory_gib": 8.0, "gpus": [{"name": "A GPU", "memory_gib": 80.0}]},
        "precision": "bf16-mixed", "training_seconds": 90.0, "steps": 8, "python": "3.12",
        "packages": {"torch": "2.13"},
        "command": ["train.py", "experiment=x", "source.path=/home/somebody/f.jsonl", "token=abc"],
        "code": {"commit": "c0ffee", "uncommitted_changes": True},
    }  # fmt: skip
    (folder / "provenance.json").write_text(json.dumps(facts))
    found = training_parts(view(folder), {}, folder / "export")
    assert found["speed"][0] == "Hardware: A GPU (80.0 GiB); A CPU, 4 threads, 8.0 GiB of memory"
    assert "Training, evaluations included: 1.5 minutes for 8 steps" in found["speed"]
    assert "Tokens a second, median: 104" in found["speed"]
    assert found["command"] == "python -m src.train experiment=x source.path=f.jsonl 'token=<hidden>'"
    assert (found["commit"], found["changed"]) == ("c0ffee", True)
    assert found["versions"] == {"python": "3.12", "torch": "2.13"}


def test_as_many_samples_are_shown_as_were_asked_for(tmp_path):
    folder = write_run(tmp_path / "run")
    spread = {"min": 1.0, "mean": 2.5, "max": 1234.0}
    sample = {"question": "why | not", "document": "<b>because</b>", "label": 0.5}
    data = {
        "rows": 9, "characters": {"question": spread, "document": spread}, "label": spread, "samples": [sample] * 5
    }  # fmt: skip
    (folder / "training_data.json").write_text(json.dumps(data))
    for count in (0, 2):
        found = training_parts(view(folder), {"samples": count}, folder / "export")["samples"]
        assert found.count("because") == count
    assert lines(training_parts(view(folder), {}, folder / "export")["statistics"])[4] == ["max", *["1,234.00"] * 3]


def test_what_a_run_did_not_record_is_left_out(tmp_path):
    found = training_parts(view(write_bare_run(tmp_path / "run")), {}, tmp_path)
    assert (found["data"], found["lineage"], found["samples"], found["loss"]) == ({}, [], "", {})
    assert found["log"] == {"table": "", "folded": False}
    assert found["command"] == ""
