"""What trackio is told, read back from its SQLite file."""

import json
import sqlite3

import pytest
from conftest import run_program


def _rows(folder, run):
    with sqlite3.connect(folder / "crossrank.db") as db:
        found = db.execute("select step, metrics, run_id from metrics where run_name = ? order by id", [run]).fetchall()
        config = db.execute("select config from configs where run_name = ?", [run]).fetchall()
    return [(step, json.loads(metrics)) for step, metrics, _ in found], {row[2] for row in found}, config


def test_it_holds_what_the_record_holds_and_the_flat_config(tracked_run):
    lines = [json.loads(line) for line in (tracked_run.folder / "metrics.jsonl").read_text().splitlines()]
    rows, identities, config = _rows(tracked_run.cache, "smoke/lr_sweep/0")
    assert rows == [(line.pop("step"), {k: v for k, v in line.items() if k != "time"}) for line in lines]
    assert len(identities) == 1
    ((text,),) = config
    settings = json.loads(text)
    assert (settings["optimizer.lr"], settings["source.packages"]) == (1e-3, ["stdlib"])
    assert settings["_Group"] == "smoke/lr_sweep"


def test_one_line_says_where_it_is_and_how_to_see_it(tracked_run):
    (line,) = [line for line in tracked_run.output.splitlines() if "trackio" in line.lower()]
    folder = tracked_run.cache
    assert line.endswith(
        f"trackio: recorded in {folder}; show it with: TRACKIO_DIR={folder} trackio show --project crossrank"
    )


@pytest.mark.thorough  # of W&B the same is always tested
def test_a_run_that_goes_on_is_the_same_run_and_another_of_its_name_is_not(tmp_path, cache_dir):
    place = [f"cache_dir={cache_dir}", f"logger.trackio.folder={tmp_path / 'trackio'}"]
    words = ["src.train", "experiment=smoke", "logger=trackio", "~callbacks.evaluation", *place]
    run = tmp_path / "a" / "smoke" / "run"
    done = run_program(*words, f"hydra.run.dir={run}")
    assert done.returncode == 0, done.stdout + done.stderr
    (run / "result.json").unlink()  # as of one that was killed before its end
    (run / "checkpoints" / max(path.name for path in (run / "checkpoints").glob("step=*"))).unlink()
    assert run_program("src.train", f"resume={run}", f"cache_dir={cache_dir}").returncode == 0
    rows, identities, _ = _rows(tmp_path / "trackio", "smoke/run")
    assert [step for step, metrics in rows if "train/loss" in metrics] == [1, 2, 4, 6, 4, 6]
    assert len(identities) == 1
    assert run_program(*words, "data.max_steps=1", f"hydra.run.dir={tmp_path / 'b' / 'smoke' / 'run'}").returncode == 0
    assert len(_rows(tmp_path / "trackio", "smoke/run")[1]) == 2
