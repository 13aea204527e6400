"""The steps of a training whose source brings its own documents."""

import json

import pytest
from test_lineage import ROWS, TOKENS, WORDS, another, files_of, some_parts

from crossrank.data.lineage import knowable_lineage
from crossrank.data.miners.bm25 import BM25Miner
from crossrank.data.miners.none import NoMiner
from crossrank.data.sources.lists_file import ListsFile
from crossrank.data.training_rows import prepare_rows


@pytest.fixture
def parts(tmp_path, encoder):
    rows = [
        {"query": f"{WORDS[i % 12]} {i}", "docs": [f"{WORDS[i % 5]} {i}", f"{WORDS[i % 7]} {i}"], "labels": [1, 0]}
        for i in range(30)
    ]
    (tmp_path / "lists.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = ListsFile(str(tmp_path / "lists.jsonl"), dev_size=4)
    return some_parts(tmp_path, encoder) | {"source": source, "miner": NoMiner()}


@pytest.mark.parametrize(
    ("change", "ids", "built"),
    [
        ("nothing", set(), set()),
        ("the policy", set(), set()),  # nothing is mined that it could choose from
        ("the depth", set(), set()),
        ("the split", {"split", "given", "tokens", "rows"}, {"texts", "given", *TOKENS, "description"}),
        ("max_length", {"tokenizer", "tokens"}, TOKENS),
        ("a miner", {"miner", "policy", "pool", "twins", "rows"}, {"pool", "twins", *ROWS, "rows and given"}),
    ],
)
def test_without_a_miner_rows_follow_from_what_the_source_gives(parts, tmp_path, change, ids, built):
    changed = parts | {"miner": BM25Miner()} if change == "a miner" else another(parts, change)
    first = prepare_rows(**parts, cache_dir=tmp_path / "cache")
    before = files_of(tmp_path / "cache")
    second = prepare_rows(**changed, cache_dir=tmp_path / "cache")
    was, is_now = first.fingerprints, second.fingerprints
    assert {name for name in {*was, *is_now} if was.get(name) != is_now.get(name)} == ids
    after = files_of(tmp_path / "cache")
    assert {file: after[file] for file in before} == before
    new = {file.parent for file in after.keys() - before.keys()}
    assert {kind for kind, folder in second.lineage.folders(tmp_path / "cache").items() if folder in new} == built
    known, unknown = knowable_lineage(
        changed["source"], changed["miner"], changed["policy"], lambda: changed["encoder"], changed["pool_depth"]
    )
    assert (known.ids, unknown) == (second.fingerprints, {})
