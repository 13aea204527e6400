"""The benchmark's own arithmetic, and on a tiny model that both sides do the same work; speed is not asserted."""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import composed
from omegaconf import OmegaConf

from bench import cells, check, evaluate, inputs, memory, pieces, recipes, score, soak, table, train
from bench.measure import Clock, Turns, compare, matmul_flops
from crossrank.analysis.alignment import align
from crossrank.analysis.compare import compare as compare_systems
from crossrank.models.backbones import RandomInit
from crossrank.models.export import export

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec"),
]
ENTRY = {
    "cell": "train-16", "model": "minilm", "precision": "fp32", "text": "qa-mix", "peer_median": 1.2,
    "ours_median": 0.4, "peer_p10": 1.1, "ours_p10": 0.39, "ratio": 3.0, "paired_ratio": 2.9, "gap": 3e-7,
    "tokens_per_second": 2500.0, "share_of_matmul": 0.61,
    "machine": {"cpu": "a processor", "threads": 2, "load": 0.1, "torch": "2.13.0"},
}  # fmt: skip


@pytest.fixture(autouse=True)
def _generated_texts(monkeypatch):
    """The same with and without the data beside the checkout."""
    monkeypatch.setattr(inputs, "QA_MIX", Path("nowhere"))
    monkeypatch.setattr(evaluate, "SHARED", Path("nowhere"))


@pytest.fixture
def recorded(monkeypatch):
    entries = []
    for module in (train, score, evaluate):
        monkeypatch.setattr(module, "record", lambda *entry: entries.append(entry))
    return entries


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    backbone = RandomInit(inputs.MINILM, hidden_size=16, max_length=inputs.MAX_LENGTH, pooling="cls")
    return export(backbone.build(3), backbone.encoder(), tmp_path_factory.mktemp("bench") / "tiny")


def _clock(*seconds):
    return Clock(wall=list(seconds), cpu=[2 * s for s in seconds])


def test_ratios_by_hand():
    """Without the first round: medians 4 and 2; the rounds' ratios are 3/1, 4/2, 8/4, so their median is 2."""
    figures = compare(_clock(100, 3, 4, 8), _clock(1, 1, 2, 4), warm_up=1)
    assert (figures.peer_median, figures.ours_median, figures.ratio, figures.paired_ratio) == (4, 2, 2, 2)
    assert figures.cpu_ratio == pytest.approx(15 / 7)
    assert figures.peer_p10 == pytest.approx(3.2)
    assert figures.rounds == 3


def _loop(name, steps, fails_at=None):
    def loop(turns):
        turns.begin(name)
        for number in range(3):
            if number == fails_at:
                raise ValueError("broken")
            steps.append(name)
            turns.end(name)
        return name.upper()

    return loop


def test_turns_can_be_of_several_steps_which_the_figures_are_divided_by():
    steps = []
    turns = Turns({name: _loop(name, steps) for name in ("peer", "ours")}, 1, block=3)
    turns.run()
    assert steps == ["peer"] * 3 + ["ours"] * 3
    assert len(turns.clocks["ours"].wall) == 1
    figures = compare(_clock(100, 3), _clock(1, 1.5), warm_up=1, block=3)
    assert (figures.peer_median, figures.ours_median, figures.ratio) == (1, 0.5, 2)


def test_two_loops_take_turns_in_alternating_order():
    steps = []
    turns = Turns({name: _loop(name, steps) for name in ("peer", "ours")}, 3)
    assert turns.run() == {"peer": "PEER", "ours": "OURS"}
    assert steps == ["peer", "ours", "ours", "peer", "peer", "ours"]
    assert len(turns.clocks["ours"].wall) == len(turns.clocks["peer"].wall) == 3


def test_a_loop_that_breaks_ends_the_comparison():
    with pytest.raises(ValueError, match="broken"):
        Turns({"peer": _loop("peer", []), "ours": _loop("ours", [], fails_at=1)}, 3).run()


def test_the_limit_is_a_rate_of_this_machine():
    assert 1e8 < matmul_flops(torch.float32, 64, 128, tokens=64) < 1e15


def test_generated_texts_have_the_lengths_of_gooaq():
    pairs = inputs.generated(2000)
    asked, said = ([len(text.split()) for text in texts] for texts in (pairs.questions, pairs.answers))
    assert np.mean(asked) == pytest.approx(10, abs=0.3)
    assert np.mean(said) == pytest.approx(55, abs=2)
    assert max(said) == 200
    assert inputs.generated(2000).questions == pairs.questions


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_both_sides_train_on_the_same_batches(weights, precision, recorded, tmp_path):
    options = argparse.Namespace(
        model="tiny", batch=8, precision=precision, steps=20, warm_up=4, threads=1, accumulate=1, recompute=False,
        peer_compile=False, peer_grouped=False, side="both", dry=True, device="cpu", workers=0, graph=False,
        compile=False,
    )  # fmt: skip
    encoder = train.Pretrained(str(weights), max_length=inputs.MAX_LENGTH).encoder()
    rows = inputs.labelled_rows(60, encoder, tmp_path / "cache")
    train._compare(options, weights, rows, tmp_path)
    cell, _, _, figures, *_ = recorded[0]
    assert cell == "train-8"
    assert figures["rounds"] == 16
    assert figures["gap"] < (train.GATE if precision == "fp32" else 0.02)
    assert figures["padded_over_real"] > 1


def test_the_gate_of_training_is_shut_when_losses_differ(weights, monkeypatch, recorded, tmp_path):
    def peer(weights, rows, options, folder, turns):
        return [0.5, 0.5]

    monkeypatch.setattr(train, "train_peer", peer)
    monkeypatch.setattr(train, "train_ours", lambda *_: argparse.Namespace(losses=[0.5, 0.5001]))
    options = argparse.Namespace(steps=0, precision="fp32", peer_grouped=False, device="cpu")
    with pytest.raises(SystemExit, match=r"differ by 1\.0e-04, at most 1e-05 is allowed: no figure counts"):
        train._compare(options, weights, None, tmp_path)
    assert not recorded


def test_the_peers_grouped_batches_hold_every_row_once_and_pad_less():
    lengths = np.random.default_rng(0).integers(1, 100, 640)
    rows = {"question": ["q"] * 640, "document": ["d" * int(n) for n in lengths]}
    batches = list(train.GroupedByLength(train.Dataset.from_dict(rows), 16, False))
    assert sorted(row for batch in batches for row in batch) == list(range(640))
    spread = np.mean([np.ptp(lengths[batch]) for batch in batches])
    assert spread < 5 < np.mean([np.ptp(part) for part in lengths.reshape(-1, 16)])
    assert batches != sorted(batches, key=lambda batch: lengths[batch].max())


def test_both_sides_give_the_same_scores(weights, recorded, tmp_path):
    encoder = score.Pretrained(str(weights), max_length=inputs.MAX_LENGTH).encoder()
    rows = inputs.labelled_rows(20, encoder, tmp_path / "cache")
    pairs = list(zip(rows.questions, rows.documents, strict=True))
    score._compare(argparse.Namespace(model="tiny", precision="fp32", groups=2, dry=True), weights, pairs, "generated")
    assert recorded[0][3]["gap"] < score.GATE
    assert set(recorded[0][3]["peer_seconds"]) == {"peer 32", "peer 128", "ours"}


def test_both_sides_give_the_same_metrics(weights, recorded, monkeypatch):
    monkeypatch.setattr(evaluate, "model_folder", lambda *_: weights)
    monkeypatch.setattr("sys.argv", ["bench.evaluate", "--queries", "2", "--dev", "3", "--threads", "1", "--dry"])
    evaluate.main()
    assert recorded[0][3]["gap"] < evaluate.GATE
    assert recorded[0][3]["rounds"] == 2


def test_a_result_takes_the_place_of_its_last_one_in_file_and_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(table, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(table, "TABLE", tmp_path / "README.md")
    (tmp_path / "README.md").write_text(f"before\n{table.START}old\n{table.END}\nafter\n")
    figures = {k: v for k, v in ENTRY.items() if k not in ("cell", "model", "precision", "machine")}
    for ratio in (1.0, 3.0):
        table.record("train-16", "minilm", "fp32", figures | {"ratio": ratio}, ENTRY["machine"], False)
    table.record("score", "minilm", "fp32", figures, ENTRY["machine"], True)
    table.record("train-16", "minilm", "fp32", figures | {"text": "generated"}, ENTRY["machine"], False)
    table.add_memory(ENTRY, 3 * 2**30, 2**30)
    generated, real = json.loads((tmp_path / "results.json").read_text())
    assert (generated["text"], real["text"], real["ratio"]) == ("generated", "qa-mix", 3.0)
    assert "peer_memory" not in generated
    text = (tmp_path / "README.md").read_text()
    assert "old" not in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "| train-16 | minilm | fp32 | qa-mix | 1200 ms (1100 ms) | 400 ms (390 ms) | **3.00** (2.90) |" in text
    assert "3.0 GiB / 1.0 GiB" in text
    capsys.readouterr()


def test_the_guard_names_what_fell_by_more_than_15_percent():
    now = [
        ENTRY | {"ratio": 2.56},
        ENTRY | {"cell": "score", "ratio": 2.54},
        ENTRY | {"cell": "new", "ratio": 0.1},
    ]
    before = [ENTRY, ENTRY | {"cell": "score"}]
    assert check.fallen(before, now) == ["minilm score fp32 qa-mix: 2.54 x the peer's speed, the table has 3.00"]
    new = "minilm new fp32 qa-mix: 0.10 x the peer's speed, the table has none"
    assert check.beside(before, now)[2] == (new, False)


def test_the_committed_table_is_that_of_the_committed_results():
    assert table.as_markdown(table.load()) in table.TABLE.read_text(encoding="utf-8")


STEADY = soak.Part(1000, 700.0, 15.0, 54.0, 1.0, 0.02, 0.018)


def test_a_soak_names_what_grew_since_its_second_tenth():
    """The first tenth fills caches, and records grow by design; a step's own duration is the machine's affair."""
    first = [replace(STEADY, memory=300.0, descriptors=9.0, checkpoints=0.0)] * 2
    middle = [STEADY] * 16
    assert not list(soak.faults([*first, *middle, *[replace(STEADY, memory=734.0, records=9.0, step_time=1.0)] * 2]))
    grown = replace(STEADY, memory=736.0, descriptors=16.0, checkpoints=55.0, step_cpu=0.021)
    named = list(soak.faults([*first, *middle, grown, grown]))
    assert [name.split()[0] for name in named] == ["memory", "descriptors", "checkpoints", "step_cpu"]
    assert "memory grew from 700 to 736, at most 1.05 times is allowed" in named


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore:.*will be overridden")
def test_a_soak_watches_every_part_of_a_run(cache_dir, tmp_path):
    parts = soak.soak(40, tmp_path, f"cache_dir={cache_dir}", "callbacks.checkpoint.every_n_steps=10")
    assert [part.last_step for part in parts] == list(range(2, 41, 2))
    assert all(part.memory > 2**26 and part.descriptors > 3 and part.step_time > 0 for part in parts)
    states = [part.checkpoints for part in parts]  # seen before a step's own state is saved; two are kept
    assert states[:5] == [0] * 5
    assert states[5] > 2**20
    assert states[10] == pytest.approx(2 * states[5], rel=1e-3)
    assert states[-2] == pytest.approx(states[10], rel=1e-3)
    assert soak.as_table(parts).count("\n") == 20


def test_memory_is_looked_at_before_a_training_and_after_its_last_batch(tmp_path, capsys):
    memory.measure(400, 3, tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("400 pairs, 0.00 GiB of text, prepared in ")
    assert [line.split("  ")[1] for line in lines[1:]] == [
        "before", "peak of preparation", "at the start", "after 3 batches",
    ]  # fmt: skip
    assert len(list((tmp_path / "shards").iterdir())) == 1
    sizes = [int(line.split(" MiB")[0].split()[-1]) for line in lines[1:]]
    assert all(50 < size < 5000 for size in sizes)


def test_a_step_in_pieces_is_measured():
    line = pieces.measure(1, 3).split()
    assert (line[0], line[4:6], line[7], line[9]) == ("10", ["3", "pieces"], "MiB", "s")
    assert 10 * 45 <= int(line[2].replace(",", "")) <= 10 * 125
    assert float(line[6]) > 50  # a gradient of 22 million weights at least


@pytest.mark.parametrize("name", recipes.CELLS)
def test_every_recipe_trains_on_as_many_pairs(name):
    words = dict(word.split("=", 1) for word in recipes.settings(recipes.CELLS[name], 3, 85))
    questions = words.get("data.questions_per_step")
    assert (questions is not None) == (words.get("loss", "bce") not in ("bce", "bce_smooth"))
    assert int(words["data.pairs_per_step"]) == (60 if questions is None else 6 * int(questions))
    assert (words["seed"], words["data.max_steps"]) == ("3", "85")


def test_the_best_recipe_has_an_experiment_that_trains_as_its_cell_did():
    words = recipes.settings(recipes.CELLS["listnet, bm25 margin"], seed=12, steps=85)
    cell = composed("experiment=qa_mix", "run_dir=nowhere", f"source.limit={cells.PAIRS}", *words)
    best = composed("experiment=qa_mix_best", "run_dir=nowhere")
    for cfg in (cell, best):
        OmegaConf.set_struct(cfg, False)
        del cfg.name, cfg.callbacks  # when it is evaluated and saved changes no weight
    assert best == cell


def test_the_recipes_are_told_apart_on_the_same_queries(tmp_path):
    """Of 40 queries a recipe adds 0.25 to each, with both seeds; the first stage has half of plain BCE's."""
    trainings = {}
    for name, more in (("bce", 0.0), ("listnet", 0.25)):
        for seed in (1, 2):
            folder = tmp_path / f"{name}-{seed}"
            values = np.linspace(0.1, 0.5, 40) + 0.01 * seed + more
            rows = {"dataset": "dev", "query_id": [f"q{i}" for i in range(40)], "metric": recipes.METRIC}
            (folder / "evaluations").mkdir(parents=True)
            pd.DataFrame(rows | {"value": values, "base_value": np.linspace(0.05, 0.25, 40)}).to_parquet(
                folder / "evaluations" / "step=000000-held_out.parquet"
            )
            trainings.setdefault(name, []).append(folder)
    found = compare_systems(align(recipes.systems(trainings), [recipes.METRIC]), pairs="baseline")
    lines = recipes.table(found, ["bce", "listnet", "first stage, BM25"]).splitlines()
    first, second, third = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:])
    assert first[1].startswith("0.3150 [")
    assert first[2:] == ["2", "", "", "", ""]
    assert second[3] == "+0.2500 [+0.2500, +0.2500]"
    assert float(second[6]) < 0.001
    assert third[3].startswith("-0.1650 [")
