import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from crossrank.data.cache import contents
from crossrank.data.lineage import knowable_lineage, pool_lineage, with_rows
from crossrank.data.miners.bm25 import BM25Miner
from crossrank.data.policy import Policy
from crossrank.data.sources.gooaq import GooAQ
from crossrank.data.sources.pairs_file import PairsFile
from crossrank.data.tokens import PairEncoder
from crossrank.data.training_rows import prepare_rows
from crossrank.errors import DataError

WORDS = ["cat", "dog", "river", "stone", "music", "iron", "paper", "cloud", "winter", "engine", "bread", "ocean"]
ROWS = {"rows", "description"}
ALL = {"texts", "given", "pool", "twins", "question tokens", "document tokens", *ROWS}
TOKENS = {"question tokens", "document tokens"}


@dataclass(frozen=True)
class Teacher:
    """Likes long documents."""

    candidates: int = 3

    def assets(self):
        return ()

    def fingerprint(self):
        return f"{self.candidates:016x}"

    def probabilities(self, pairs):
        return np.float32([len(document) / 100 for _, document in pairs])


@pytest.fixture
def parts(tmp_path, encoder):
    return some_parts(tmp_path, encoder)


def some_parts(folder, encoder):
    """Return what `prepare_rows` is given: 30 pairs in a file, and the rest."""
    file = folder / "pairs.jsonl"
    rows = [{"question": f"{WORDS[i % 12]} {WORDS[i % 7]} {i}", "answer": f"{WORDS[i % 5]} {i}"} for i in range(30)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "source": PairsFile(str(file), dev_size=4),
        "miner": BM25Miner(),
        "policy": Policy(3, rank_max=20),
        "encoder": encoder,
        "pool_depth": 20,
        "teacher": None,
    }


def another(parts, change):
    """Return the parts with one thing changed."""
    source, policy, encoder = parts["source"], parts["policy"], parts["encoder"]
    if change == "a byte":
        file = Path(source.path)
        file.write_bytes(file.read_bytes().replace(b"ocean", b"ocear", 1))
    changed = {
        "nothing": {},
        "the place": {"source": replace(source, path=shutil.copy(source.path, f"{source.path[:-6]}-moved.jsonl"))},
        "a byte": {},
        "the split": {"source": replace(source, seed=13)},
        "the miner": {"miner": BM25Miner(k1=0.9)},
        "the depth": {"pool_depth": 22},
        "the policy": {"policy": replace(policy, negatives=2, absolute_margin=0.0)},
        "how many": {"policy": replace(policy, negatives=2, denoise="relabel")},
        "twins kept": {"policy": replace(policy, drop_twins=False)},
        "a teacher": {"teacher": Teacher()},
        "the teacher": {"teacher": Teacher(4)},
        "max_length": {"encoder": PairEncoder(encoder.tokenizer, 32)},
        "the tokenizer": {"encoder": PairEncoder(with_a_word(encoder.tokenizer), encoder.max_length)},
    }
    return parts | changed[change]


def with_a_word(tokenizer):
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.add_tokens(["riverstone"])
    names = {name: getattr(tokenizer, name) for name in ("cls_token", "sep_token", "pad_token", "unk_token")}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)


def files_of(cache):
    """Each cached file with what shows that it was written again."""
    return {
        file: (file.stat().st_ino, file.stat().st_mtime_ns)
        for file in cache.rglob("*")
        if file.is_file() and file.suffix != ".lock"
    }


@pytest.mark.parametrize(
    ("change", "ids", "built"),
    [
        ("nothing", set(), set()),
        ("the place", set(), set()),
        ("a byte", {"source", "split", "given", "pool", "twins", "tokens", "rows"}, ALL),
        ("the split", {"split", "given", "pool", "twins", "tokens", "rows"}, ALL),
        ("the miner", {"miner", "pool", "twins", "rows"}, {"pool", "twins", *ROWS}),
        ("the depth", {"pool", "twins", "rows"}, {"pool", "twins", *ROWS}),
        ("the policy", {"policy", "rows"}, ROWS),
        ("twins kept", {"twins", "policy", "rows"}, ROWS),
        ("a teacher", {"teacher", "answers", "rows"}, {"answers", *ROWS}),
        ("max_length", {"tokenizer", "tokens"}, TOKENS),
        ("the tokenizer", {"tokenizer", "tokens"}, TOKENS),
    ],
)
def test_changing_one_thing_builds_what_follows_from_it_and_nothing_else(parts, tmp_path, change, ids, built):
    check_reuse(parts, another(parts, change) if change != "a byte" else change, tmp_path / "cache", ids, built)


@pytest.mark.parametrize(
    ("change", "ids", "built"),
    [
        ("the miner", {"miner", "pool", "twins", "answers", "rows"}, {"pool", "twins", "answers", *ROWS}),
        ("the teacher", {"teacher", "answers", "rows"}, {"answers", *ROWS}),
        ("the policy", {"policy", "answers", "rows"}, {"answers", *ROWS}),  # other survivors to ask about
        ("how many", {"policy", "rows"}, ROWS),
        ("max_length", {"tokenizer", "tokens"}, TOKENS),
    ],
)
def test_with_a_teacher_it_is_asked_again_only_of_other_candidates(parts, tmp_path, change, ids, built):
    taught = parts | {"teacher": Teacher()}
    check_reuse(taught, another(taught, change), tmp_path / "cache", ids, built)


def check_reuse(parts, changed, cache, ids, built):
    first = prepare_rows(**parts, cache_dir=cache)
    before = files_of(cache)
    second = prepare_rows(**(another(parts, changed) if isinstance(changed, str) else changed), cache_dir=cache)
    after = files_of(cache)
    was, is_now = first.fingerprints, second.fingerprints
    assert {name for name in {*was, *is_now} if was.get(name) != is_now.get(name)} == ids
    assert {file: after[file] for file in before} == before
    new = {file.parent for file in after.keys() - before.keys()}
    assert {kind for kind, folder in second.lineage.folders(cache).items() if folder in new} == built
    others = new - {second.lineage.folders(cache)[kind] for kind in built}
    assert [folder.parent.name for folder in others] == ["signatures"] * ("texts" in built)


def test_caches_are_named_by_the_ids_and_hold_the_same_wherever_they_are_built(parts, tmp_path):
    rows = [prepare_rows(**parts, cache_dir=tmp_path / name) for name in ("a", "b")]
    assert rows[0].fingerprints == rows[1].fingerprints
    ids = rows[0].fingerprints
    named = [
        f"sources/{ids['split']}-arrow",
        f"given/{ids['given']}",
        f"pools/{ids['pool']}",
        f"twins/{ids['twins']}",
        f"rows/{ids['rows']}",
        f"rows/{ids['rows']}-description",
    ]
    named += [f"tokens/{ids['tokens']}-{kind}" for kind in ("documents", "questions")]
    folders = {path.parent for path in (tmp_path / "a").rglob("content.json")}
    places = {folder.relative_to(tmp_path / "a").as_posix() for folder in folders}
    assert {place for place in places if not place.startswith("signatures/")} == set(named)
    for folder in named:
        assert contents(tmp_path / "a" / folder) == contents(tmp_path / "b" / folder) != {}


def known(parts):
    pool = pool_lineage(*(parts[name] for name in ("source", "miner", "policy", "pool_depth", "teacher")))
    return with_rows(pool, parts["encoder"])


def test_what_is_gone_leaves_the_other_steps_known(parts, tmp_path):
    (tmp_path / "pairs.jsonl").unlink()
    with pytest.raises(DataError, match="no such file"):
        known(parts)

    def broken():
        raise OSError("no\ntokenizer")

    now, unknown = knowable_lineage(parts["source"], parts["miner"], parts["policy"], broken, 20)
    assert set(now.steps) == {"miner", "policy"}
    assert set(unknown) == {"source", "split", "given", "pool", "twins", "tokenizer", "tokens", "rows"}
    assert "pairs.jsonl: no such file" in unknown["split"]
    assert unknown["tokenizer"] == "no tokenizer"
    assert unknown["tokens"] == "follows from split and tokenizer"
    assert unknown["rows"] == "follows from given and pool and twins"


def test_a_description_leaves_the_machine_without_its_folders(parts, tmp_path):
    source = replace(parts["source"], dev_path=shutil.copy(parts["source"].path, tmp_path / "dev.jsonl"))
    made = known(parts | {"source": source})
    assert made.steps["source"].description["path"] == str(tmp_path / "pairs.jsonl")
    published = made.published()
    assert published.steps["source"].description["path"] == "pairs.jsonl"
    assert str(tmp_path) not in json.dumps([step.description for step in published.steps.values()])
    assert published.ids == made.ids
    hub = known(parts | {"source": GooAQ(revision="abc")}).published().steps["source"].description
    assert (hub["path"], hub["revision"]) == ("sentence-transformers/gooaq", "abc")
