import shutil

import pytest
from safetensors.numpy import load_file, save_file
from test_lineage import ALL, another, known, some_parts
from test_training_rows import listed

from crossrank.data.lineage import Lineage, Step
from crossrank.data.lineage_record import UNSAID, LineageRecord, differences
from crossrank.data.miners.bm25 import BM25Miner
from crossrank.data.miners.embedding import EmbeddingMiner
from crossrank.data.miners.none import NoMiner
from crossrank.data.policy import Policy
from crossrank.data.training_rows import prepare_rows
from crossrank.errors import DataError


@pytest.fixture
def parts(tmp_path, encoder):
    return some_parts(tmp_path, encoder)


def test_mined_rows_and_those_joined_with_given_ones_are_both_recorded(tmp_path, encoder):
    mined = prepare_rows(listed([1, 0]), BM25Miner(), Policy(3), encoder, tmp_path)
    assert LineageRecord.of(mined.lineage, tmp_path).caches.keys() >= {"given", "rows", "rows and given"}
    assert mined.folder == mined.lineage.folders(tmp_path)["rows and given"]
    alone = prepare_rows(listed([1, 0]), NoMiner(), Policy(3), encoder, tmp_path)
    caches = LineageRecord.of(alone.lineage, tmp_path).caches
    assert caches.keys() == {"texts", "given", "question tokens", "document tokens", "description"}


def test_a_record_comes_back_as_it_was_written(parts, tmp_path):
    rows = prepare_rows(**parts, cache_dir=tmp_path / "cache")
    record = LineageRecord.of(rows.lineage, tmp_path / "cache").with_files(tmp_path, [tmp_path / "pairs.jsonl"])
    record.write(tmp_path)
    back = LineageRecord.read(tmp_path)
    assert back == record
    assert set(back.caches) == ALL
    assert [len(digest) for digest in back.files.values()] == [64]
    assert differences(back.lineage, known(parts)) == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"no lineage\.json; it is no run, or one made before"),
        ("{", r"lineage\.json is no record of a run"),
        ('{"steps": 3}', r"lineage\.json is no record of a run"),
        (b"\xff", r"lineage\.json is no record of a run"),
        ("[" * 100_000, r"lineage\.json is no record of a run"),
        ('{"steps": {"pool": {"id": "../../..", "description": {}}}, "caches": {}}', "should match pattern"),
        ('{"steps": {}, "caches": {}, "files": {"../x": "ab"}}', r"'\.\./x' lies outside the run's folder"),
        ('{"steps": {}, "caches": {}, "files": {"/x": "ab"}}', "'/x' lies outside the run's folder"),
    ],
)
def test_no_record_and_a_damaged_or_hostile_one_are_one_sentence(tmp_path, content, message):
    if content:
        (tmp_path / "lineage.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message):
        LineageRecord.read(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("the split", {"split": ["seed was 12 and is 13"], "pool": ["follows from split"]}),
        ("the miner", {"miner": ["k1 was 1.5 and is 0.9"], "pool": ["follows from miner"]}),
        ("a teacher", {"teacher": ["there was none"], "rows": ["follows from answers"]}),
        ("the depth", {"pool": ["depth was 20 and is 22"], "rows": ["follows from pool and twins"]}),
        ("max_length", {"tokenizer": ["max_length was 64 and is 32"], "tokens": ["follows from tokenizer"]}),
        (
            "the policy",
            {"policy": ["negatives was 3 and is 2", "absolute_margin was None and is 0.0"]},
        ),
    ],
)  # fmt: skip
def test_what_differs_is_said_in_words(parts, change, words):
    told = differences(known(parts), known(another(parts, change)))
    assert {step: told[step] for step in words} == words


def test_of_another_file_the_content_and_the_place_are_named(parts):
    before = known(parts)
    moved = another(another(parts, "the place"), "a byte")  # the byte is changed in the copy
    (content, path), split = (differences(before, known(moved))[step] for step in ("source", "split"))
    assert sorted([content.split()[0], path.split()[0]]) == ["content", "path"]
    assert split == ["follows from source"]


def test_other_weights_under_the_same_settings_are_told_as_such(parts, static_embedder, tmp_path):
    folder = shutil.copytree(static_embedder, tmp_path / "embedder")
    before = known(parts | {"miner": EmbeddingMiner(str(folder))})
    (file,) = folder.rglob("*.safetensors")
    weights = load_file(file)
    for tensor in weights.values():
        tensor[0, 0] += 1
    save_file(weights, file)
    told = differences(before, known(parts | {"miner": EmbeddingMiner(str(folder))}))
    assert told["miner"] == [UNSAID]
    assert set(told) == {"miner", "pool", "twins", "rows"}


def test_nested_descriptions_are_compared_value_by_value():
    was = Lineage({"source": Step("1", {"packages": ["numpy 1", "torch 2"], "mix": {"a": 1}, "only": [1]})})
    is_now = Lineage({"source": Step("2", {"packages": ["numpy 1", "torch 3"], "mix": {"a": 2}, "only": [1, 2]})})
    assert differences(was, is_now) == {
        "source": [
            "packages[1] was 'torch 2' and is 'torch 3'", "mix.a was 1 and is 2", "only was [1] and is [1, 2]",
        ]
    }  # fmt: skip


def test_a_step_that_comes_or_goes_is_told_unless_it_is_only_unknown(parts):
    with_twins, without = known(parts), known(another(parts, "twins kept"))
    assert differences(with_twins, without)["twins"] == ["there is none any more"]
    assert differences(without, with_twins)["twins"] == ["there was none"]
    lacking = Lineage({name: step for name, step in with_twins.steps.items() if name != "twins"})
    assert differences(with_twins, lacking, {"twins"}) == {}
