"""What W&B is told, read back from the log that an offline run would upload."""

import http.server
import json
import math
import os
import shutil
import signal
import socket
import threading

import numpy as np
import pandas as pd
import program_server
import pytest
import wandb
import yaml
from conftest import ROOT, program_environment, run_program
from wandb_records import STEP, read_back, runs_in

from crossrank.analysis.runs import RunFolder
from crossrank.callbacks.step_rng import StepKeyedRNG
from crossrank.data.lineage import Lineage, Step
from crossrank.training import wandb_logger
from crossrank.training.wandb_logger import WandbTracker, finish_wandb, input_artifacts


class Opened:
    """What `wandb.init` returns, as far as opening a run asks it."""

    id = "abc"

    def define_metric(self, *_, **__):
        pass


@pytest.fixture
def no_key(tmp_path, monkeypatch):
    """A machine that W&B knows nothing of; to dial out fails the test."""
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(wandb.api, "_api", None, raising=False)
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: pytest.fail("dialled out"))
    wandb.teardown()  # it reads the environment once
    yield
    wandb.finish()
    wandb.teardown()


def test_wandb_without_a_key_is_offline_and_two_runs_in_a_row_are_two_runs(no_key, tmp_path, caplog):
    identities = []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        logger = WandbTracker(str(folder), name, group="sweep")
        logger.log_metrics({"train/loss": 0.5}, step=1)
        identities.append(logger.experiment.id)
        assert logger.experiment.settings.mode == "offline"
        assert (logger.experiment.name, logger.experiment.group) == (name, "sweep")
        assert wandb.run is logger.experiment
        assert f"upload later with: wandb sync {folder}/wandb/offline-run-*" in caplog.text
        finish_wandb(0)
        assert wandb.run is None
    assert len(set(identities)) == 2
    for name, identity in zip(("first", "second"), identities, strict=True):
        (run,) = runs_in(tmp_path / name)
        assert run.name.endswith(identity)
        assert (run / f"run-{identity}.wandb").stat().st_size > 0


def test_closing_says_how_the_run_ended(monkeypatch):
    codes = []
    monkeypatch.setattr(wandb, "run", object())
    monkeypatch.setattr(wandb, "finish", lambda exit_code: codes.append(exit_code))
    finish_wandb(143)
    finish_wandb(0)
    assert codes == [143, 0]


def test_closing_without_an_open_run_does_nothing(monkeypatch):
    monkeypatch.setattr(wandb, "run", None)
    monkeypatch.setattr(wandb, "finish", lambda **_: pytest.fail("nothing to finish"))
    finish_wandb(0)


@pytest.mark.parametrize(("reachable", "mode"), [(True, "online"), (False, "offline")])
def test_with_a_key_the_server_decides_by_being_reachable(reachable, mode, no_key, monkeypatch, tmp_path):
    def connect(address, timeout):
        dialled.append(address)
        if not reachable:
            raise OSError("no route")
        return socket.socket()

    dialled, started = [], []
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example:8080")
    monkeypatch.setattr(socket, "create_connection", connect)
    monkeypatch.setattr(wandb, "init", lambda **settings: started.append(settings) or Opened())
    WandbTracker(str(tmp_path), "name")
    assert dialled == [("wandb.example", 8080)]
    assert [(s["mode"], s["name"], s["project"]) for s in started] == [(mode, "name", "crossrank")]


def test_a_mode_that_is_set_decides_without_asking_the_network(monkeypatch, tmp_path):
    started = []
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: pytest.fail("dialled out"))
    monkeypatch.setattr(wandb, "init", lambda **settings: started.append(settings) or Opened())
    WandbTracker(str(tmp_path), "name")
    assert started[0]["mode"] == "disabled"


def test_a_run_that_goes_on_is_one_run_there_too(monkeypatch, tmp_path):
    started = []
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(wandb, "init", lambda **settings: started.append(settings) or Opened())
    for _ in range(2):
        WandbTracker(str(tmp_path), "name")
    assert [(s["id"], s["resume"]) for s in started] == [(None, None), ("abc", "allow")]


@pytest.mark.parametrize("wanted", [None, "online"])
def test_without_a_key_it_is_offline_whatever_was_wanted(wanted, no_key, monkeypatch, tmp_path, caplog):
    """Online, W&B would ask a person for the key, and end a program that has no terminal."""
    if wanted:
        monkeypatch.setenv("WANDB_MODE", wanted)
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    logger = WandbTracker(str(tmp_path), "name")
    assert logger.experiment.settings.mode == "offline"
    (line,) = [record.getMessage() for record in caplog.records if record.name.startswith("crossrank")]
    assert line.startswith("W&B: offline (no key: neither WANDB_API_KEY nor wandb login gave one); upload later with: ")


@pytest.fixture
def refusing_server():
    """A server that knows no key."""

    class Refusal(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers.get("content-length") or 0))
            self.send_response(401)
            self.end_headers()
            self.wfile.write(b'{"errors": [{"message": "not authenticated"}]}')

        do_GET = do_POST

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusal)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_server_that_refuses_makes_it_an_offline_run(refusing_server, no_key, monkeypatch, tmp_path, caplog):
    monkeypatch.undo()  # this one may dial out, to this machine
    for name, value in {
        "WANDB_BASE_URL": refusing_server, "WANDB_API_KEY": "0" * 40, "WANDB_CONFIG_DIR": str(tmp_path / "config"),
        "WANDB_CACHE_DIR": str(tmp_path / "cache"), "WANDB_DATA_DIR": str(tmp_path / "data"), "HOME": str(tmp_path),
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("WANDB_MODE")
    wandb.teardown()
    logger = WandbTracker(str(tmp_path), "name")
    logger.log_metrics({"train/loss": 0.5}, step=3)
    finish_wandb(0)
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("crossrank")]
    assert lines == [
        f"W&B: offline (CommError: not authenticated); upload later with: wandb sync {tmp_path}/wandb/offline-run-*"
    ]
    (run,) = runs_in(tmp_path)
    assert read_back(run).rows == [{"train/loss": 0.5, STEP: 3}]


@pytest.fixture(scope="module")
def recorded(tracked_run):
    (run,) = runs_in(tracked_run.folder)
    return read_back(run)


def test_the_run_says_what_it_is(recorded, tracked_run):
    """It was given no group, but lies where the job of a sweep does."""
    run = recorded.run
    assert (run["display_name"], run["project"], run["job_type"]) == ("smoke/0", "crossrank", "train")
    assert (run["run_group"], run["tags"], run["notes"]) == ("smoke/lr_sweep", ["smoke"], "what it is for")
    assert run["run_id"] == (tracked_run.folder / "wandb_run_id").read_text().strip()
    assert recorded.exit_code == [0]
    assert recorded.summary["state"] == "finished"


def test_the_config_is_resolved_and_flat(recorded, tracked_run):
    tree = yaml.safe_load((tracked_run.folder / "config.yaml").read_text())
    (flat,) = pd.json_normalize(tree, sep=".").to_dict("records")
    lineage = json.loads((tracked_run.folder / "lineage.json").read_text())["steps"]
    wanted = flat | {f"lineage.{name}": step["id"] for name, step in lineage.items()}
    config = {key: value for key, value in recorded.summary["config"].items() if not key.startswith("_")}
    assert config == {key: None if isinstance(v, float) and math.isnan(v) else v for key, v in wanted.items()}
    assert config["callbacks.evaluation.monitor"] == "eval/held_out/dev/ndcg@10"
    assert "${" not in json.dumps(config)


def test_the_history_is_the_record_against_the_optimizer_step(recorded, tracked_run):
    lines = [json.loads(line) for line in (tracked_run.folder / "metrics.jsonl").read_text().splitlines()]
    wanted = [{STEP: line.pop("step"), **{k: v for k, v in line.items() if k != "time"}} for line in lines]
    assert recorded.rows == wanted
    assert [row[STEP] for row in recorded.rows if "health/separation" in row] == [2, 4, 6]
    axes = {
        record["glob_name"]: record["step_metric"] for record in recorded.records["metric"] if "glob_name" in record
    }
    assert axes == {"train/*": STEP, "eval/*": STEP, "health/*": STEP}
    kinds = {key.partition("/")[0] for row in recorded.rows for key in row}
    assert kinds == {"train", "eval", "health", "trainer"}


def test_the_summary_holds_the_best_steps_values(recorded, tracked_run):
    """Which is not the last step."""
    run = RunFolder(tracked_run.folder)
    at = run.metrics[(run.metrics["step"] == 3) & run.metrics["key"].str.startswith("eval/held_out/")]
    wanted = {f"best/{key.removeprefix('eval/')}": value for key, value in zip(at["key"], at["value"], strict=True)}
    summary = recorded.summary["summary"]
    assert {key: value for key, value in summary.items() if key.startswith("best/")} == wanted | {"best/step": 3}
    assert summary["best/held_out/dev/ndcg@10"] == run.result["best_value"]
    assert summary["eval/held_out/dev/ndcg@10"] != run.result["best_value"]
    assert summary[STEP] == 6


def test_what_is_best_is_known_before_the_run_ends(tmp_path, monkeypatch):
    from crossrank.training.tracking import JsonlLogger

    record, logger = JsonlLogger(tmp_path), WandbTracker(str(tmp_path), "name")
    logger.log_hyperparams({"monitor": "eval/e/d/ndcg@10"})
    seen = []
    for step, value in ((0, 0.9), (1, 0.3), (2, 0.5), (3, 0.5), (4, 0.4)):
        for each in (record, logger):
            each.log_metrics({"eval/e/d/ndcg@10": value, "eval/seconds": 1.0}, step=step)
        seen.append(dict(logger.experiment.summary).get("best/step"))
    finish_wandb(1)
    assert seen == [None, 1, 2, 2, 2]
    (run,) = runs_in(tmp_path)
    summary = read_back(run).summary["summary"]
    assert {k: v for k, v in summary.items() if k.startswith("best/")} == {"best/step": 2, "best/e/d/ndcg@10": 0.5}


@pytest.mark.parametrize(("key", "step"), [("queries/before", 0), ("queries/best", 3)])
def test_the_tables_hold_every_question_and_its_metrics(recorded, tracked_run, key, step):
    columns, rows = recorded.table(key)
    found = {row[columns.index("query_id")]: dict(zip(columns, row, strict=True)) for row in rows}
    run = RunFolder(tracked_run.folder)
    at = run.evaluations[run.evaluations["step"] == step]
    asked = run.queries.set_index("query_id")
    assert len(rows) == len(found) == 20
    for query, row in found.items():
        assert (row["question"], row["candidates"]) == (asked.loc[query, "question"], asked.loc[query, "candidates"])
        assert (row["evaluator"], row["dataset"], row["step"]) == ("held_out", "dev", step)
        for metric in ("ndcg@10", "trec_map"):
            one = at[(at["query_id"] == query) & (at["metric"] == metric)].iloc[0]
            values = [row[metric], row[f"{metric} first stage"], row[f"{metric} change"], row["first_rank"]]
            wanted = [one["value"], one["base_value"], one["value"] - one["base_value"], one["first_rank"]]
            np.testing.assert_array_equal(np.array(values, float), wanted)


@pytest.fixture
def published(smoke_run, tmp_path):
    """A finished run whose folder a tracker that was opened later is shown."""

    def publish(change):
        folder = tmp_path / "smoke"
        shutil.copytree(smoke_run.folder, folder)
        change(folder)
        WandbTracker(str(folder), "smoke").publish(folder)
        finish_wandb(0)
        (run,) = runs_in(folder)
        return read_back(run)

    return publish


def test_of_too_many_questions_a_part_is_shown_and_a_line_says_so(published, monkeypatch, caplog):
    monkeypatch.setattr(wandb_logger, "ROWS", 5)
    records = published(lambda folder: (folder / "report.html").write_text("<p>a page</p>"))
    (before, best) = (records.table(key) for key in ("queries/before", "queries/best"))
    asked = [[row[columns.index("query_id")] for row in rows] for columns, rows in (before, best)]
    assert len(asked[0]) == 5
    assert asked[0] == asked[1]
    assert "W&B: the table of step 3 holds 5 of its questions; evaluations/ holds all" in caplog.text
    (page,) = records.folder.glob("files/media/html/report*.html")
    assert "<p>a page</p>" in page.read_text()
    (report,) = records.artifacts("report").values()
    assert "report.html" in {entry["path"] for entry in report["manifest"]["contents"]}


def test_what_was_never_evaluated_is_published_without_tables(published):
    def forget(folder):
        facts = json.loads((folder / "result.json").read_text())
        facts = {key: value for key, value in facts.items() if key != "monitor"}
        (folder / "result.json").write_text(json.dumps(facts | {"pruned_at": 3}))

    records = published(forget)
    assert "history" not in records.records
    assert list(records.artifacts("model")) == ["smoke"]
    assert records.summary["summary"]["pruned_at"] == 3


def test_the_charts_are_drawn_from_logged_tables(recorded):
    drawn = {key for record in recorded.records["config"] for key in record["update"] if "visualize" in key}
    assert drawn == {"_wandb.visualize.charts/scores", "_wandb.visualize.charts/reliability"}
    columns, rows = recorded.table("charts/scores_table")
    widths = {}
    for name in ("relevant", "other"):
        points = np.array([row[:1] + row[2:] for row in rows if row[1] == name])
        widths[name] = points[1, 0] - points[0, 0]
        assert points[:, 1].sum() * widths[name] == pytest.approx(1)  # a density
    assert columns == ["step", "lineKey", "lineVal"]
    assert {row[1] for row in recorded.table("charts/reliability_table")[1]} == {"found", "as it should be"}


def test_the_graph_leads_from_the_data_over_the_run_to_the_model(recorded, tracked_run):
    steps = json.loads((tracked_run.folder / "lineage.json").read_text())["steps"]
    used = recorded.artifacts("dataset")
    assert set(used) == {f"{kind}-{steps[step]['id']}" for kind, step in
                         (("texts", "split"), ("pool", "pool"), ("rows", "rows"))}  # fmt: skip
    assert all(artifact["use_after_commit"] for artifact in used.values())
    pool = used[f"pool-{steps['pool']['id']}"]["metadata"]
    assert list(pool) == ["source", "split", "miner", "pool"]
    assert pool["miner"] == {"id": steps["miner"]["id"], "kind": "BM25Miner", "k1": 1.5, "b": 0.75}
    (model,) = recorded.artifacts("model").values()
    assert (model["name"], "use_after_commit" in model) == ("smoke", False)
    assert set(model["aliases"]) == {"latest", "step-3"}
    assert model["metadata"]["made_of"] == list(used)
    assert model["metadata"]["lineage"] == {name: step["id"] for name, step in steps.items()}
    assert (model["metadata"]["best_step"], model["metadata"]["name"]) == (3, "smoke")
    files = {entry["path"]: entry["local_path"] for entry in model["manifest"]["contents"]}
    export = tracked_run.folder / "export"
    assert files == {path.name: str(path) for path in export.iterdir()}  # not copied: weights are large
    (report,) = recorded.artifacts("report").values()
    assert {entry["path"] for entry in report["manifest"]["contents"]} >= {
        "report.md",
        "metrics.parquet",
        "config.yaml",
    }


def test_the_same_data_is_the_same_artifact_and_other_data_another():
    def made(policy):
        steps = {"source": "a", "split": "b", "pool": "c", "policy": policy, "rows": policy, "tokens": "e"}
        return Lineage({name: Step(letter * 16, {"limit": 5}) for name, letter in steps.items()})

    one, again, other = (
        {artifact.name: artifact.digest for artifact in input_artifacts(made(policy))} for policy in ("1", "1", "2")
    )
    assert one == again
    assert list(one) == [f"texts-{'b' * 16}", f"pool-{'c' * 16}", f"rows-{'1' * 16}"]
    assert set(one.items()) & set(other.items()) == set(list(one.items())[:2])
    assert len(set(one.values())) == 3


def stop_at_the_fourth_batch():
    """Send this process what a scheduler sends when the time is up."""
    start, batches = StepKeyedRNG.on_train_batch_start, []

    def counted(self, *arguments):
        batches.append(1)
        if len(batches) == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return start(self, *arguments)

    StepKeyedRNG.on_train_batch_start = counted


def test_a_run_that_is_stopped_has_not_finished_and_goes_on_as_the_same_run(tmp_path, cache_dir):
    place = [f"cache_dir={cache_dir}", f"hydra.run.dir={tmp_path / 'run'}"]
    words = ["src.train", "experiment=smoke", "logger=wandb", "callbacks.health.every_n_steps=2"]
    stopped = program_server.call([*words, *place], ROOT, program_environment(), stop_at_the_fourth_batch)
    assert stopped.returncode == 128 + signal.SIGTERM, stopped.stdout + stopped.stderr
    half = pd.read_csv(tmp_path / "run" / "metrics.csv")
    assert list(half["step"]) == [0, 1, 2, 3, 4]
    done = run_program("src.train", f"resume={tmp_path / 'run'}", f"cache_dir={cache_dir}")
    assert done.returncode == 0, done.stdout + done.stderr
    first, second = map(read_back, runs_in(tmp_path / "run"))
    assert first.run["run_id"] == second.run["run_id"]
    assert [first.exit_code, second.exit_code] == [[143], [0]]
    assert [first.summary["state"], second.summary["state"]] == ["failed", "finished"]
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    rows = [*first.rows, *second.rows]
    assert [row[STEP] for row in rows] == [line["step"] for line in lines]
    assert [row.get("train/loss") for row in rows] == [line.get("train/loss") for line in lines]
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert second.summary["summary"]["best/step"] == result["best_step"]
    assert {3, 4}.isdisjoint(row[STEP] for row in second.rows)  # it went on after them
    assert list(pd.read_csv(tmp_path / "run" / "metrics.csv")["step"]) == [0, 1, 2, 3, 4, 6]


def test_a_job_that_fails_closes_its_run_as_failed(tmp_path, cache_dir):
    job = tmp_path / "smoke" / "x_sweep" / "lr=1e30"
    done = run_program(
        "src.train", "experiment=smoke", "optimizer.lr=1e30", "logger=wandb", "data.max_steps=4",
        "~callbacks.evaluation", f"hydra.run.dir='{job}'", f"cache_dir={cache_dir}",
    )  # fmt: skip
    assert done.returncode != 0
    assert not (job / "result.json").is_file()
    assert (job / "train.log").read_text().count("upload later with: wandb sync") == 1
    (dead,) = map(read_back, runs_in(job))
    assert dead.exit_code == [1]
    assert dead.summary["state"] == "failed"
    assert (dead.run["run_group"], dead.run["display_name"]) == ("smoke/x_sweep", f"smoke/{job.name}")
    assert dead.summary["config"]["optimizer.lr"] == 1e30
    assert dead.rows
    assert dead.artifacts("dataset")
    assert "model" not in {artifact["type"] for artifact in dead.records["artifact"]}
    assert (job / "metrics.parquet").is_file()
