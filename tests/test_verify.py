"""A small run on a local file, then one thing is changed at a time; the program itself is in test_verify_program.py."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from conftest import MINILM, composed

from crossrank.callbacks.provenance import code_fingerprint
from crossrank.config import build_training_run
from crossrank.data.cache import CONTENTS, contents
from crossrank.errors import DataError, ResumeError
from crossrank.hub import Asset, resolve
from crossrank.run import execute
from crossrank.verify import exit_code, in_words, verify

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*treespec, LeafSpec.*", "ignore:.*does not have many workers.*", "ignore:.*will be overridden.*"
)
WORDS = ["cat", "dog", "river", "stone", "music", "iron", "paper", "cloud", "winter", "engine", "bread", "ocean"]
DATA = {"source", "split", "given", "pool", "twins", "tokens", "rows"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with pairs, a tokenizer, the caches and a finished run of them."""
    world = tmp_path_factory.mktemp("world")
    rows = [{"question": f"{WORDS[i % 12]} {WORDS[i % 7]} {i}", "answer": f"{WORDS[i % 5]} {i}"} for i in range(40)]
    (world / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder = resolve(Asset("model", MINILM))
    (world / "tokenizer").mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "config.json"):
        shutil.copy(folder / name, world / "tokenizer")
    execute(build_training_run(_composed(world)))
    return world


def _composed(world, *overrides):
    return composed(
        "experiment=smoke", "source=pairs", "~source.packages", f"source.path={world}/pairs.jsonl",
        "source.dev_size=5", "policy.drop_twins=true", f"model.tokenizer={world}/tokenizer", "logger=csv",
        "data.max_steps=2", "callbacks.evaluation.every_n_steps=1", "callbacks.checkpoint.every_n_steps=1",
        f"run_dir={world}/run", f"cache_dir={world}/cache", *overrides,
    )  # fmt: skip


@pytest.fixture
def world(made, tmp_path):
    """A copy of all that, elsewhere."""
    copy = shutil.copytree(made, tmp_path / "world")
    config = copy / "run" / "config.yaml"
    config.write_text(config.read_text().replace(str(made), str(copy)))
    return copy


def findings(world):
    return {finding.step: finding for finding in verify(world / "run")}


def with_verdict(found, verdict):
    return {step for step, finding in found.items() if finding.verdict == verdict}


def configure(world, **changes):
    file = world / "run" / "config.yaml"
    config = yaml.safe_load(file.read_text())
    for path, value in changes.items():
        part, _, key = path.partition("__")
        config[part][key] = value
    file.write_text(yaml.safe_dump(config))


def spoil(file: Path, place=-1):
    """Change one byte."""
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


def the_only(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


def test_a_run_that_was_moved_and_nothing_else_is_what_was_recorded(world):
    found = findings(world)
    assert set(found) >= DATA | {
        "miner", "policy", "tokenizer", "code", "packages", "export/model.safetensors", "export/tokenizer.json",
        "checkpoints/best.ckpt", "cached texts", "cached pool", "cached twins", "cached question tokens",
        "cached document tokens", "cached rows",
    }  # fmt: skip
    assert {finding.verdict for finding in found.values()} == {"same"}
    assert all(finding.recorded == finding.now for finding in found.values())
    assert exit_code([*found.values()]) == 0
    assert in_words([*found.values()]) == ["the run is what was recorded"]


CHANGES = {
    "a byte of the source": (
        lambda world: spoil(world / "pairs.jsonl", place=15), DATA, ("source", "content was '"),
    ),
    "a setting of the miner": (
        lambda world: configure(world, miner__k1=2.0), {"miner", "pool", "twins", "rows"},
        ("miner", "k1 was 1.5 and is 2.0"),
    ),
    "the policy": (
        lambda world: configure(world, policy__negatives=2), {"policy", "rows"}, ("policy", "negatives was 5 and is 2"),
    ),
    "a filter of the policy": (
        lambda world: configure(world, policy__drop_twins=False), {"policy", "twins", "rows"},
        ("twins", "there is none any more"),
    ),
    "a teacher": (
        lambda world: teach(world), {"teacher", "answers", "rows"}, ("teacher", "there was none"),
    ),
    "the depth": (
        lambda world: configure(world, data__pool_depth=120), {"pool", "twins", "rows"},
        ("pool", "depth was 100 and is 120"),
    ),
    "the split": (
        lambda world: configure(world, source__seed=13), DATA - {"source"}, ("split", "seed was 12 and is 13"),
    ),
    "max_length": (
        lambda world: configure(world, model__max_length=32), {"tokenizer", "tokens"},
        ("tokenizer", "max_length was 128 and is 32"),
    ),
    "the tokenizer's file": (
        lambda world: rename_a_word(world / "tokenizer" / "tokenizer.json"), {"tokenizer", "tokens"},
        ("tokenizer", "content was '"),
    ),
    "a weight of the export": (
        lambda world: spoil(world / "run" / "export" / "model.safetensors"), {"export/model.safetensors"},
        ("export/model.safetensors", "its content is another"),
    ),
    "a setting of the export": (
        lambda world: spoil(world / "run" / "export" / "tokenizer_config.json"), {"export/tokenizer_config.json"},
        ("export/tokenizer_config.json", "its content is another"),
    ),
    "the best checkpoint": (
        lambda world: spoil(world / "run" / "checkpoints" / "best.ckpt"), {"checkpoints/best.ckpt"},
        ("checkpoints/best.ckpt", "its content is another"),
    ),
    "a cached pool": (
        lambda world: spoil(pool_of(world) / "candidates.npy"), {"cached pool"},
        ("cached pool", "candidates.npy is not what was built; remove "),
    ),
    "crossrank's code": (
        lambda world: provenance(world, "code", "fingerprint", "0123456789abcdef"), {"code"},
        ("code", f"crossrank's code was 0123456789abcdef and is {code_fingerprint()}"),
    ),
    "a package": (
        lambda world: provenance(world, "packages", "torch", "2.0.0"), {"packages"},
        ("packages", f"torch was 2.0.0 and is {torch.__version__}"),
    ),
}  # fmt: skip


def teach(world):
    file = world / "run" / "config.yaml"
    teacher = {"_target_": "crossrank.inference.teacher.CrossEncoderTeacher", "path": str(world / "run" / "export")}
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | {"teacher": teacher}))


def rename_a_word(file):
    content = file.read_text()
    assert content.count('"river":') == 1
    file.write_text(content.replace('"river":', '"rivar":'))


def pool_of(world):
    ids = json.loads((world / "run" / "lineage.json").read_text())["steps"]
    return world / "cache" / "pools" / ids["pool"]["id"]


def provenance(world, part, key, value):
    file = world / "run" / "provenance.json"
    facts = json.loads(file.read_text())
    facts[part][key] = value
    file.write_text(json.dumps(facts))


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_changed_is_named_with_what_follows_from_it_and_nothing_else(world, change):
    make, differing, (step, words) = CHANGES[change]
    make(world)
    found = findings(world)
    assert with_verdict(found, "differs") == differing
    assert with_verdict(found, "same") == set(found) - differing
    assert words in found[step].words
    assert found[step].recorded != found[step].now
    assert exit_code([*found.values()]) == 1
    *sentences, whole = in_words([*found.values()])
    assert len(sentences) == len(differing)
    assert whole == f"of {len(found)}, {len(differing)} differ and 0 cannot be checked"
    for follower in differing & DATA - {step, "twins" if change == "a filter of the policy" else ""}:
        assert "follows from" in found[follower].words


def test_a_state_whose_content_is_not_what_its_name_says_differs(world):
    state = the_only(world / "run" / "checkpoints", "step=000002-*.ckpt")
    spoil(state, place=200)
    found = findings(world)
    assert with_verdict(found, "differs") == {f"checkpoints/{state.name}"}


def test_a_pool_that_came_out_another_when_it_was_built_again_differs(world):
    folder = pool_of(world)
    spoil(folder / "scores.npy")
    (folder / CONTENTS).write_text(json.dumps(contents(folder)))
    found = findings(world)
    assert with_verdict(found, "differs") == {"cached pool"}
    assert found["cached pool"].words == f"{folder} was built again since the run, and came out another"


def test_a_cache_that_is_gone_is_no_difference_and_may_lie_elsewhere(world):
    (world / "cache").rename(world / "elsewhere")
    found = findings(world)
    gone = {step for step in found if step.startswith("cached ")}
    assert with_verdict(found, "not cached") == gone
    assert exit_code([*found.values()]) == 0
    elsewhere = {finding.step: finding for finding in verify(world / "run", world / "elsewhere")}
    assert with_verdict(elsewhere, "same") == set(elsewhere)


def test_a_file_that_was_moved_cannot_be_checked_which_is_no_difference(world):
    (world / "pairs.jsonl").rename(world / "moved.jsonl")
    found = findings(world)
    assert with_verdict(found, "cannot be checked") == DATA
    assert with_verdict(found, "differs") == set()
    assert "pairs.jsonl: no such file" in found["source"].words
    assert found["rows"].words == "follows from given and pool and twins"
    assert exit_code([*found.values()]) == 3
    configure(world, source__path=str(world / "moved.jsonl"))
    assert exit_code(verify(world / "run")) == 0


def test_what_follows_from_a_change_differs_though_another_step_cannot_be_checked(world):
    (world / "pairs.jsonl").unlink()
    configure(world, miner__k1=2.0)
    found = findings(world)
    assert with_verdict(found, "differs") == {"miner", "pool", "twins", "rows"}
    assert with_verdict(found, "cannot be checked") == {"source", "split", "given", "tokens"}
    assert found["pool"].words == "follows from miner"
    assert exit_code([*found.values()]) == 1


def test_a_tokenizer_or_a_model_that_is_gone_cannot_be_checked(world):
    shutil.rmtree(world / "tokenizer")
    (world / "run" / "export" / "model.safetensors").unlink()
    (world / "run" / "provenance.json").unlink()
    found = findings(world)
    wanted = {"tokenizer", "tokens", "export/model.safetensors", "code", "packages"}
    assert with_verdict(found, "cannot be checked") == wanted
    assert "no such folder" in found["tokenizer"].words
    assert exit_code([*found.values()]) == 3


def test_a_card_that_a_person_edits_is_no_difference(world):
    with (world / "run" / "export" / "README.md").open("a") as card:
        card.write("\nmade for somebody\n")
    assert exit_code(verify(world / "run")) == 0


def test_of_an_unfinished_run_the_data_is_checked(world):
    file = world / "run" / "lineage.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"files": {}}))
    found = findings(world)
    assert found["export"].words == "the run has not finished"
    assert with_verdict(found, "cannot be checked") == {"export"}


def test_a_run_of_before_lineage_was_recorded_is_one_sentence(world):
    (world / "run" / "lineage.json").unlink()
    with pytest.raises(DataError, match=r"no lineage\.json; it is no run, or one made before crossrank recorded"):
        verify(world / "run")


def test_the_ids_stand_wherever_a_run_is_recorded(made):
    run = made / "run"
    record = json.loads((run / "lineage.json").read_text())
    ids = {step: record["steps"][step]["id"] for step in record["steps"]}
    assert set(ids) == DATA | {"miner", "policy", "tokenizer"}
    assert json.loads((run / "provenance.json").read_text())["data"]["fingerprints"] == ids
    checkpoints = list((run / "checkpoints").glob("*.ckpt"))
    assert len(checkpoints) == 3  # the best and the two last
    assert all(torch.load(file, weights_only=True)["lineage"] == ids for file in checkpoints)
    logged = yaml.safe_load(the_only(run / "csv", "*/hparams.yaml").read_text())
    assert (logged["lineage"], logged["miner"]["k1"]) == (ids, 1.5)
    exported = json.loads((run / "export" / "lineage.json").read_text())["steps"]
    assert {step: exported[step]["id"] for step in exported} == ids
    card = (run / "export" / "README.md").read_text()
    assert all(f"| {step} | `{identity}` |" in card for step, identity in ids.items())
    for text in (card, json.dumps(exported)):
        assert "pairs.jsonl" in text
        assert str(made) not in text


def test_a_run_does_not_go_on_with_other_data_and_keeps_what_it_recorded(world):
    before = (world / "run" / "lineage.json").read_text()
    (world / "run" / "result.json").unlink()
    spoil(world / "pairs.jsonl", place=15)
    run = build_training_run(_composed(world), resumed=True)
    with pytest.raises(
        ResumeError, match=r"its data is not what it was: source: .*content was '\w{16}' and is '\w{16}'"
    ):
        execute(run)
    assert (world / "run" / "lineage.json").read_text() == before
