"""Whatever a file or a config holds: nothing but our own errors comes out, and nothing that it names is executed."""

import copy
import json
import os
import pickle
import shutil
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from test_config import smoke
from transformers import AutoConfig, AutoModelForSequenceClassification

from crossrank.analysis.systems import load_systems
from crossrank.callbacks.evaluation import PeriodicEvaluation
from crossrank.callbacks.health import last_good_checkpoint
from crossrank.callbacks.provenance import changed_since
from crossrank.config import build_training_run
from crossrank.data.fingerprint import file_fingerprint
from crossrank.data.pairs import PairIndex
from crossrank.data.sources.lists_file import ListsFile
from crossrank.errors import ConfigError, CrossrankError, DataError, ModelError, ResumeError, TrainingError
from crossrank.evaluation.calibration import Calibration
from crossrank.evaluation.formats import read_qrels, read_ranking, read_texts
from crossrank.evaluation.lists import RerankingLists
from crossrank.evaluation.store import EvaluationStore
from crossrank.inference.padded import load_scorer
from crossrank.models.backbones import Pretrained
from crossrank.resume import continued, newest_unfinished
from crossrank.training.checkpoints import AtomicCheckpointIO, newest_whole_state

WITHOUT_SHRINKING = [Phase.explicit, Phase.reuse, Phase.generate]  # a large config shrinks for minutes
FEW = settings(
    phases=WITHOUT_SHRINKING,
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
MANY = settings(FEW, max_examples=120)

numbers = st.sampled_from([0, 1, -1, 0.5, 10**20, 10**400, 1e39, 1e308, -0.0]) | st.floats() | st.integers()
words = st.text(max_size=6) | st.sampled_from(["q1", "d1", "d2", "\ud800", "nan", "inf", "1e400", "1_0", "²", "\x00"])
values = st.recursive(
    st.none() | st.booleans() | numbers | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=5,
)


@contextmanager
def nothing_but_ours():
    with suppress(CrossrankError):
        yield


class Payload:
    """Unpickling it makes a folder."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.fixture
def marker(tmp_path) -> Path:
    """What must never be there; that the means of the tests would make it is shown first."""
    trial = tmp_path / "trial"
    pickle.loads(pickle.dumps(Payload(trial)))
    assert trial.is_dir()
    return tmp_path / "executed"


# ---- data files

lines = st.lists(st.sampled_from(["q1", "q2", "Q0", "0", "d1", "d2", "1"]) | words | numbers.map(str), max_size=7)
tables = st.lists(lines.map(" ".join), max_size=4).map("\n".join)
rows = st.lists(
    st.dictionaries(
        st.sampled_from(["_id", "text", "title", "query-id", "corpus-id", "corpus-ids", "score", "query", "positive",
                         "negative", "documents"]),
        values | st.sampled_from(["q1", "d1"]) | st.lists(st.sampled_from(["d1", "d2"]), min_size=1, max_size=2),
    ),
    max_size=4,
).map(lambda found: "\n".join(map(json.dumps, found)))  # fmt: skip
contents = (tables | rows | st.text(max_size=60)).map(lambda t: t.encode(errors="surrogatepass")) | st.binary(
    max_size=60
)


@MANY
@given(raw=contents, suffix=st.sampled_from([".trec", ".qrels", ".txt.gz", ".jsonl", ".tsv", ".csv", ".parquet"]))
def test_collections(tmp_path_factory, raw, suffix):
    file = tmp_path_factory.getbasetemp() / f"fuzz-collection{suffix}"
    file.write_bytes(raw)
    for known in (None, {"q1", "d1"}):
        with nothing_but_ours():
            qrels = read_qrels(file, known, known)
            assert all(isinstance(g, int) and abs(g) < 2**31 for grades in qrels.values() for g in grades.values())
        with nothing_but_ours():
            assert all(isinstance(d, str) for ids in read_ranking(file, known, known).values() for d in ids)
    for titles in (False, True):
        with nothing_but_ours():
            assert all(text.strip() for text in read_texts(file, titles).values())


@MANY
@given(raw=rows.map(str.encode) | contents, suffix=st.sampled_from([".jsonl", ".csv"]))
def test_reranking_lists(tmp_path_factory, raw, suffix):
    file = tmp_path_factory.getbasetemp() / f"fuzz-lists{suffix}"
    file.write_bytes(raw)
    with nothing_but_ours():
        evaluation = RerankingLists([str(file)])(lambda pairs: np.zeros(len(pairs), np.float32))
        EvaluationStore(file.parent / "fuzz-store").write("lists", 0, evaluation)


columns = st.sampled_from(["query", "answer", "negative", "negative_1", "docs", "labels", "scores", "score"])
lists = st.lists(words | numbers, max_size=3)
list_rows = st.lists(
    st.dictionaries(columns, values | lists | lists.map(json.dumps) | st.just("a text"), max_size=5), max_size=4
)
encoded = list_rows.map(lambda found: "\n".join(map(json.dumps, found)).encode()) | st.builds(
    lambda names, cells: "\n".join([",".join(names), *map(",".join, cells)]).encode(errors="surrogatepass"),
    st.lists(columns, min_size=1, max_size=4, unique=True),
    st.lists(
        st.lists(st.sampled_from(["a text", '"[""a"", ""b""]"', '"[1, 0.5]"', "1", "", "[", '"']) | words), max_size=3
    ),
)


@MANY
@given(
    raw=encoded | contents,
    suffix=st.sampled_from([".jsonl", ".csv", ".tsv", ".parquet", ".arrow"]),
    kind=st.sampled_from(["auto", "auto", "pairs", "triplets", "ntuples", "labelled_lists", "scored_lists"]),
    bad_rows=st.sampled_from(["error", "drop"]),
    rescale=st.sampled_from(["none", "sigmoid", "largest"]),
)
def test_lists_to_train_on(tmp_path_factory, raw, suffix, kind, bad_rows, rescale):
    file = tmp_path_factory.getbasetemp() / f"fuzz-training{suffix}"
    file.write_bytes(raw)
    source = ListsFile(str(file), format=kind, bad_rows=bad_rows, rescale=rescale, dev_size=1)
    with nothing_but_ours():
        splits = source.load()
        index = PairIndex.of(splits.train)
        assert all(text.strip() for text in (*index.questions, *index.documents))
        labels = splits.train.labels
        assert labels is None or np.isfinite(labels).all()


def test_what_a_run_cannot_hold_is_refused_by_its_row(tmp_path):
    cases = {
        "a.jsonl": (
            '{"query-id": "q", "corpus-id": "d", "score": 1' + "0" * 400 + "}",
            "'score' must be a number, got 1000",
        ),
        "b.jsonl": ('{"query-id": "q", "corpus-id": "d", "score": 1e12}', "must be a whole number"),
        "c.jsonl": ('{"query-id": "\\ud800", "corpus-id": "d"}', "half a character"),
        "d.qrels": ("q 0 d 1e300", "'score' must be a number, got '1e300', which single"),
    }
    for name, (content, message) in cases.items():
        (tmp_path / name).write_text(content)
        with pytest.raises(DataError, match=f"{name}, row 1: .*{message}"):
            read_qrels(tmp_path / name, None, None)
    (tmp_path / "e.run").write_text("q Q0 d 1 1e39 tag")
    with pytest.raises(
        DataError, match=r"e.run, row 1: 'score' must be a number, got '1e39', which single precision cannot hold"
    ):
        read_ranking(tmp_path / "e.run", None, None)


@MANY
@given(content=values | st.fixed_dictionaries({"shift": values, "temperature": values, "bias": values}))
def test_a_calibration(content):
    with nothing_but_ours():
        found = Calibration.from_dict(content)
        assert np.isfinite(list(found.to_dict().values())).all()


@FEW
@given(raw=contents, name=st.sampled_from(["step=000001-a.parquet", "a.trec", "metrics.jsonl", "config.yaml"]))
def test_systems_to_compare(tmp_path_factory, raw, name):
    folder = tmp_path_factory.mktemp("systems")
    (folder / name).write_bytes(raw)
    for word in (folder, folder / name):
        with nothing_but_ours():
            load_systems([str(word), str(word)])


@pytest.mark.parametrize("name", ["../x", "a/b", "/x", "..", ".", "", ".x", "a\x00b", "x" * 101, "a\nb"])
def test_no_file_is_written_outside_its_folder_whatever_an_evaluator_is_called(name, tmp_path):
    with pytest.raises(ValueError, match="a word without slashes"):
        EvaluationStore(tmp_path / "evaluations").write(name, 0, None)
    with pytest.raises(ValueError, match="a word without slashes"):
        EvaluationStore(tmp_path / "evaluations").describe(name, [])
    with pytest.raises(ValueError, match="a word without slashes"):
        PeriodicEvaluation({name: None}, "x", str(tmp_path))
    assert not list(tmp_path.iterdir())


# ---- checkpoints


def checkpoint(file: Path, content: object) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, file)
    return file


def tried(file: Path) -> list[str]:
    """Hand a file to all that loads checkpoints, each time under a name that says that it is whole."""
    content = file_fingerprint(file)
    whole = file.rename(file.with_name(f"step=000001-{content}.ckpt"))
    assert newest_whole_state(file.parent).file == whole
    last_good_checkpoint(file.parent)
    refused = []
    for weights_only in (True, False, None):  # whatever Lightning asks for
        try:
            AtomicCheckpointIO().load_checkpoint(whole, weights_only=weights_only)
        except ResumeError as error:
            refused.append(str(error))
    evaluation = PeriodicEvaluation({"a": None}, "x", str(file.parents[1]))
    evaluation.best_content = content
    shutil.copy(whole, evaluation.best_checkpoint)
    try:
        evaluation.load_best()
    except TrainingError as error:
        refused.append(str(error))
    return refused


@pytest.mark.parametrize("how", ["torch", "legacy", "pickle", "inside"])
def test_a_checkpoint_that_would_run_code_is_refused(how, marker, tmp_path):
    file = tmp_path / "run" / "checkpoints" / "x"
    bomb = Payload(marker)
    content = {"state_dict": {"w": bomb}, "global_step": 1} if how == "inside" else bomb
    checkpoint(file, content)
    if how == "legacy":
        torch.save(content, file, _use_new_zipfile_serialization=False)
    if how == "pickle":
        file.write_bytes(pickle.dumps(content))
    assert len(tried(file)) == 4
    assert last_good_checkpoint(file.parent) is None
    assert not marker.exists()


@FEW
@given(data=st.data())
def test_a_damaged_checkpoint(tmp_path_factory, data):
    file = tmp_path_factory.mktemp("run") / "checkpoints" / "x"
    checkpoint(file, {"state_dict": {"w": torch.arange(6.0)}, "global_step": 3, "optimizer_states": []})
    raw = bytearray(file.read_bytes())
    start = data.draw(st.integers(0, len(raw) - 1))
    damage = data.draw(st.binary(min_size=1, max_size=40))
    raw[start : start + len(damage)] = damage
    file.write_bytes(raw[: data.draw(st.none() | st.integers(0, len(raw)))])
    tried(file)


@FEW
@given(
    content=values | st.fixed_dictionaries({"state_dict": values, "global_step": values, "optimizer_states": values})
)
def test_a_checkpoint_of_something_else(tmp_path_factory, content):
    tried(checkpoint(tmp_path_factory.mktemp("run") / "checkpoints" / "x", content))


@FEW
@given(name=st.text(st.characters(exclude_characters="/\x00", codec="utf-8"), max_size=12), folder=st.booleans())
def test_files_with_strange_names_among_the_checkpoints(tmp_path_factory, name, folder):
    run = tmp_path_factory.mktemp("run")
    for file in (run / f"step={name}-x.ckpt", run / f"step=²{name}-.ckpt"):
        file.mkdir() if folder else file.touch()
    (run / "step=1-link.ckpt").symlink_to(run / "nowhere")
    assert newest_whole_state(run) is None
    assert last_good_checkpoint(run) is None


@MANY
@given(content=(values | st.dictionaries(st.sampled_from(["code", "packages", "resumed"]), values)).map(json.dumps))
def test_a_record_of_what_a_run_was_made_of(tmp_path_factory, content):
    run = tmp_path_factory.getbasetemp()
    (run / "provenance.json").write_text(content)
    with nothing_but_ours():
        assert all(isinstance(change, str) for change in changed_since(run))


# ---- models


@pytest.fixture(scope="module")
def model(tmp_path_factory, encoder) -> Path:
    folder = tmp_path_factory.mktemp("good-model")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    config = AutoConfig.for_model("bert", vocab_size=30522, **sizes, num_labels=1)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    encoder.tokenizer.save_pretrained(folder)
    return folder


def loaded(folder: Path) -> list[str]:
    """Hand a folder to all that loads models; return what went wrong."""
    errors = []
    backbone = Pretrained(str(folder), attention_dropout=0.0)
    for load in (lambda: backbone.build(0), backbone.encoder, lambda: load_scorer(str(folder))):
        try:
            load()
        except CrossrankError as error:
            errors.append(str(error))
    return errors


def with_json(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


CUSTOM = {"AutoConfig": "evil.C", "AutoModelForSequenceClassification": "evil.M", "AutoTokenizer": ["evil.T", "evil.T"]}


@pytest.mark.parametrize("model_type", ["bert", "one_of_its_own"])
def test_a_models_own_code_is_never_imported_nor_asked_about(model_type, model, marker, tmp_path, monkeypatch):
    """Without an answer transformers asks on the terminal, and takes a yes."""
    monkeypatch.setattr("builtins.input", lambda *_: "yes")
    folder = Path(shutil.copytree(model, tmp_path / "model"))
    code = "from transformers import BertConfig as C, BertForSequenceClassification as M, BertTokenizer as T\n"
    (folder / "evil.py").write_text(f"import os\nos.mkdir({str(marker)!r})\n{code}")
    with_json(folder / "config.json", auto_map=CUSTOM, model_type=model_type)
    with_json(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.T", "evil.T"]}, tokenizer_class="T")
    modules = [{"idx": i, "name": str(i), "path": "", "type": "evil.M"} for i in range(2)]
    for sentence_transformers in (False, True):
        if sentence_transformers:  # whose path has modules of its own
            (folder / "modules.json").write_text(json.dumps(modules))
            (folder / "config_sentence_transformers.json").write_text('{"model_type": "CrossEncoder"}')
        errors = loaded(folder)
        assert bool(errors) == (model_type != "bert" or sentence_transformers)
    assert not marker.exists()
    assert "evil" not in sys.modules


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
@pytest.mark.parametrize("save", [torch.save, lambda content, file: file.write_bytes(pickle.dumps(content))])
def test_pickled_weights_are_never_loaded(name, save, model, marker, tmp_path):
    folder = Path(shutil.copytree(model, tmp_path / "model"))
    (folder / "model.safetensors").unlink()
    save({"bert.embeddings.word_embeddings.weight": Payload(marker)}, folder / name)
    assert sum("holds no weights" in error for error in loaded(folder)) == 2
    (folder / "modules.json").write_text("[]")
    (folder / "config_sentence_transformers.json").write_text(
        '{"model_type": "CrossEncoder", "default_prompt_name": "x"}'
    )
    assert any("no cross-encoder that sentence-transformers can load" in error for error in loaded(folder))
    assert not marker.exists()


FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "config_sentence_transformers.json", "modules.json")
settings_of_a_model = st.sampled_from(
    ["model_type", "hidden_size", "num_attention_heads", "architectures", "id2label", "hidden_act", "dtype",
     "max_position_embeddings", "vocab_size", "pad_token_id", "quantization_config", "model_max_length", "pad_token",
     "tokenizer_class", "default_prompt_name", "added_tokens", "model", "_attn_implementation", "auto_map"]
)  # fmt: skip


@pytest.mark.filterwarnings("ignore")  # transformers warns of what it makes of nonsense
@settings(FEW, max_examples=30)
@given(data=st.data(), file=st.sampled_from(FILES))
def test_a_damaged_model(tmp_path_factory, model, data, file):
    folder = tmp_path_factory.mktemp("damaged")
    for other in model.iterdir():
        (folder / other.name).hardlink_to(other)
    known = json.loads((model / file).read_text()) if (model / file).is_file() else {"model_type": "CrossEncoder"}
    small = values.filter(lambda v: not isinstance(v, int) or abs(v) < 10**6)  # a large size is refused by memory only
    content = data.draw(
        st.dictionaries(settings_of_a_model, small, min_size=1, max_size=2).map(lambda c: json.dumps(known | c))
        | values.map(json.dumps) | st.text(max_size=20)
    )  # fmt: skip
    (folder / file).unlink(missing_ok=True)
    (folder / file).write_bytes(content.encode(errors="surrogatepass"))
    loaded(folder)


@FEW
@given(data=st.data())
def test_damaged_weights(tmp_path_factory, model, data):
    folder = tmp_path_factory.mktemp("damaged")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).hardlink_to(model / name)
    raw = bytearray((model / "model.safetensors").read_bytes())
    start = data.draw(st.integers(0, 3000))
    raw[start : start + 9] = data.draw(st.binary(min_size=9, max_size=9))
    (folder / "model.safetensors").write_bytes(raw[: data.draw(st.none() | st.integers(0, len(raw)))])
    with suppress(ModelError):
        Pretrained(str(folder), attention_dropout=0.0).build(0)


# ---- configs

EVIL = [
    "os.mkdir", "os.system", "pathlib.Path.mkdir", "builtins.eval", "evil_module", "evil_module.f", "evil_module:f",
    "crossrank.callbacks.provenance.subprocess.run", "crossrank.callbacks.provenance.os.mkdir", "crossrank:os",
    "crossrank.gate.build", "crossrank.resume._load", "crossrank.gate.hydra.utils.instantiate", "torch.load",
    "torch.hub.load", "torch.os.mkdir", "torch.optim.lr_scheduler.types.FunctionType", "lightning.pytorch.Trainer",
    "lightning.pytorch.loggers.os.mkdir", "crossrank.data.readers.read_rows.__globals__", "...", "", "crossrank",
]  # fmt: skip


@pytest.fixture
def evil_module(marker, tmp_path, monkeypatch) -> str:
    """A module that can be imported, and would show that it was."""
    folder = str(marker)
    (tmp_path / "evil_module.py").write_text(
        f"import os\nos.mkdir({folder!r})\n\n\ndef f(path=None):\n    return path\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "evil_module"
    sys.modules.pop("evil_module", None)


@pytest.fixture(scope="module")
def tree():
    return OmegaConf.to_container(smoke(), resolve=False)


def problems(tree):
    with pytest.raises(ConfigError) as error:
        build_training_run(OmegaConf.create(tree))
    return error.value.problems


@pytest.mark.parametrize("target", EVIL)
@pytest.mark.parametrize("place", ["evaluators.held_out.miner", "logger.x"])
def test_a_target_that_is_no_component_is_refused_before_it_is_imported(target, place, tree, marker, evil_module):
    cfg = OmegaConf.create(tree)
    OmegaConf.update(cfg, place, {"_target_": target, "path": str(marker)}, merge=False, force_add=True)
    found = problems(OmegaConf.to_container(cfg))
    assert any(problem.startswith(f"{place}._target_: ") for problem in found), found
    assert not marker.exists()
    assert evil_module not in sys.modules


def hidden(target: str, marker: Path) -> dict[str, object]:
    """Ways of putting a target where only Hydra would see it."""
    node = f"{{_target_: {target}, path: {marker}}}"
    return {
        "created": f'${{oc.create:"{node}"}}',
        "decoded": f"${{oc.decode:'{node}'}}",
        "resolved_twice": f"\\${{oc.create:'{node}'}}",
        "resolved_thrice": f"\\\\\\${{oc.create:'{node}'}}",
        "composed": {"_target_": "${.name}", "name": target, "path": str(marker)},
        "in_a_list": [[{"a": {"_target_": target, "path": str(marker)}}]],
        "partial": {"_target_": target, "_partial_": True, "path": str(marker)},
        "elsewhere": "${seed}",
    }


@pytest.mark.parametrize("way", list(hidden("", Path())))
@pytest.mark.parametrize("place", ["loss", "loss.pos_weight", "evaluators.held_out.miner"])
def test_a_hidden_target_is_not_built(way, place, tree, marker):
    for target in ("os.mkdir", "pathlib.Path"):
        cfg = copy.deepcopy(tree)
        *parents, last = place.split(".")
        node = cfg
        for parent in parents:
            node = node[parent]
        if way == "elsewhere":
            cfg["seed"] = {"_target_": target, "path": str(marker)}
        node[last] = hidden(target, marker)[way]
        assert problems(cfg)
        assert not marker.exists()


def test_what_a_user_allows_is_built(tree, marker, evil_module, monkeypatch):
    """Nothing in a config can: it is an environment variable."""
    cfg = {**tree, "logger": {"x": {"_target_": "evil_module.f", "_partial_": True}}}
    (problem,) = problems(cfg)
    assert problem.startswith("logger.x._target_: 'evil_module.f' is no class or function of crossrank.callbacks, ")
    assert "allow its package by the environment variable CROSSRANK_TARGETS" in problem
    monkeypatch.setenv("CROSSRANK_TARGETS", "other, evil_module")
    build_training_run(OmegaConf.create(cfg))
    assert marker.exists()


def paths(tree, path=()):
    yield path
    for key, child in tree.items() if isinstance(tree, dict) else ():
        yield from paths(child, (*path, key))


targets = st.sampled_from(EVIL) | st.sampled_from(
    ["crossrank.losses.bce.WeightedBCE", "crossrank.data.miners.bm25.BM25Miner", "torch.optim.SGD",
     "crossrank.evaluation.lists.RerankingLists", "crossrank.callbacks.health.TrainingHealth", "torch.optim.Optimizer",
     "lightning.pytorch.callbacks.Timer", "crossrank.data.batch.PairBatch", "crossrank.data.fingerprint.fingerprint"]
)  # fmt: skip
interpolations = st.sampled_from(
    ["${seed}", "${loss}", "${x", "${oc.env:HOME}", "${now:}", "???", "${.}", "${..}", "\\${a}"]
)
branches = st.recursive(
    values | targets | interpolations,
    lambda inner: st.dictionaries(
        st.sampled_from(["_target_", "_partial_", "_args_", "_recursive_", "_convert_", "lr", "path", "a"]),
        inner | targets, max_size=3,
    ) | st.lists(inner, max_size=2),
    max_leaves=5,
)  # fmt: skip


@settings(FEW, max_examples=60)
@given(data=st.data())
def test_the_gate_lets_nothing_but_a_config_error_out(tree, marker, data):
    changed = copy.deepcopy(tree)
    for _ in range(data.draw(st.integers(1, 3))):
        *parents, last = data.draw(st.sampled_from([path for path in paths(changed) if path]))
        node = changed
        for parent in parents:
            node = node[parent]
        node[data.draw(st.sampled_from([last, last, "_target_"]) | words)] = data.draw(branches)
    try:
        cfg = OmegaConf.create(changed)
    except (OmegaConfBaseException, ValueError):  # no YAML file would come so far
        return
    with suppress(ConfigError):
        build_training_run(cfg)
    assert not marker.exists()


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> str:
    return OmegaConf.to_yaml(smoke(), resolve=True)


def resumed(folder: Path) -> None:
    cfg, _ = continued(smoke_once(folder), [f"resume={folder}"], folder)
    build_training_run(cfg)


def smoke_once(folder: Path, cache: list = []):  # noqa: B006
    if not cache:
        cache.append(smoke("resume=x"))
    cfg = cache[0].copy()
    cfg.resume = str(folder)
    return cfg


@settings(FEW, max_examples=30)
@given(data=st.data())
def test_the_config_of_a_run_that_comes_from_elsewhere(tmp_path_factory, saved, data):
    runs = tmp_path_factory.mktemp("runs")
    content = yaml.safe_load(saved)
    *parents, last = data.draw(st.sampled_from([path for path in paths(content) if path]))
    node = content
    for parent in parents:
        node = node[parent]
    node[data.draw(st.just(last) | words | st.integers() | st.none())] = data.draw(branches)
    text = data.draw(st.just(yaml.safe_dump(content)) | values.map(yaml.safe_dump) | st.text(max_size=30))
    (runs / "a").mkdir()
    (runs / "a" / "config.yaml").write_bytes(text.encode(errors="surrogatepass"))
    with nothing_but_ours():
        resumed(runs / "a")
    assert newest_unfinished(runs, smoke_once(runs)) is None or text


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.mkdir", "!!python/object/new:os.mkdir", "!os.mkdir"])
def test_a_tag_of_yaml_runs_nothing(tag, saved, marker, tmp_path):
    (tmp_path / "config.yaml").write_text(f"{saved}\nloss: {tag} [{marker}]\n")
    with pytest.raises(ResumeError, match="cannot be read"):
        resumed(tmp_path)
    assert not marker.exists()


def test_a_runs_config_reads_no_environment_and_writes_into_its_folder_only(saved, tmp_path):
    """It was resolved when it was written."""
    (tmp_path / "config.yaml").write_text(saved.replace("name: smoke", "name: ${oc.env:HOME}"))
    with pytest.raises(ResumeError, match="which no run writes"):
        resumed(tmp_path)
    tree = yaml.safe_load(saved)
    tree["callbacks"]["provenance"]["run_dir"] = "/elsewhere"
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tree))
    cfg, _ = continued(smoke_once(tmp_path), [], tmp_path)
    assert cfg.callbacks.provenance.run_dir == str(tmp_path)
