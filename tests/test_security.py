"""What the source may not do, read from the source; that hostile files come to nothing stands in test_fuzz.py."""

import ast
import re
from pathlib import Path

import pytest
from conftest import ROOT
from omegaconf import OmegaConf
from packaging.requirements import Requirement

SOURCES = sorted(file for folder in ("src", "bench") for file in (ROOT / folder).rglob("*.py"))
LOADERS = ("from_pretrained", "CrossEncoder", "SentenceTransformer")  # of transformers and sentence-transformers
FORBIDDEN = re.compile(
    r"eval|exec|compile|__import__|os\.(system|popen|exec\w*|spawn\w*)|subprocess\.(getoutput|getstatusoutput)"
    r"|(c?[pP]ickle|dill|cloudpickle|joblib|marshal|shelve)\.\w*(load|loads|open|Unpickler)|(pd|pandas)\.read_pickle"
    r"|yaml\.(load|load_all|unsafe_load\w*|full_load\w*)|torch\.(hub|jit)\.\w*load\w*|runpy\.\w+|tempfile\.mktemp"
)


def name(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def wrongs(source: str) -> list[str]:
    """Return what a source calls that could run what it reads."""
    found = []
    for node in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)):
        called = ast.unparse(node.func)
        options = {word.arg: ast.unparse(word.value) for word in node.keywords}
        last = called.rpartition(".")[2]
        if FORBIDDEN.fullmatch(called):
            found.append(called)
        if called == "torch.load" and options.get("weights_only") != "True":
            found.append("torch.load without weights_only=True")
        if called in ("np.load", "numpy.load") and options.get("allow_pickle", "False") != "False":
            found.append("np.load with allow_pickle")
        if options.get("shell", "False") != "False":
            found.append(f"{called} with a shell")
        if "trust_remote_code" in options and options["trust_remote_code"] != "False":
            found.append(f"{called} with trust_remote_code")
        ours = last == "CrossEncoder" and "from crossrank.models.cross_encoder import" in source  # which loads nothing
        if last in LOADERS and "modules" not in options and not ours:
            if options.get("trust_remote_code") != "False":
                found.append(f"{called} without trust_remote_code=False")  # transformers' default asks the terminal
            weights = not re.search(r"Config|Tokenizer", called)
            if weights and "use_safetensors" not in ast.unparse(node).replace(
                "'use_safetensors': True", "use_safetensors"
            ):
                found.append(f"{called} without use_safetensors")
    return found


def test_nothing_that_is_read_is_executed():
    found = {name(file): wrongs(file.read_text(encoding="utf-8")) for file in SOURCES if file.parts[-2] != "bench"}
    assert {file: calls for file, calls in found.items() if calls} == {}


@pytest.mark.parametrize(
    "source",
    [
        "eval(x)", "exec(x)", "os.system(x)", "pickle.load(f)", "pickle.Unpickler(f)", "joblib.load(f)", "yaml.load(f)",
        "pd.read_pickle(f)", "torch.load(f)", "torch.load(f, weights_only=False)", "np.load(f, allow_pickle=True)",
        "subprocess.run(x, shell=True)", "AutoConfig.from_pretrained(p)", "f(p, trust_remote_code=True)",
        "f(trust_remote_code=config.trust)", "AutoModel.from_pretrained(p, trust_remote_code=False)",
        "AutoTokenizer.from_pretrained(p, trust_remote_code=None)", "CrossEncoder(p, trust_remote_code=False)",
        "torch.hub.load(x)", "torch.jit.load(x)", "cloudpickle.loads(x)", "dill.load(f)",
    ],
)  # fmt: skip
def test_the_reader_of_the_source_sees(source):
    assert wrongs(source)


@pytest.mark.parametrize(
    "source",
    [
        "model.eval()", "re.compile(x)", "torch.compile(m)", "json.load(f)", "torch.load(f, weights_only=True)",
        "AutoConfig.from_pretrained(p, trust_remote_code=False)", "np.load(f)", "subprocess.run(['git'])",
        "AutoModel.from_pretrained(p, use_safetensors=True, trust_remote_code=False)",
        "CrossEncoder(p, trust_remote_code=False, model_kwargs={'use_safetensors': True})",
    ],
)  # fmt: skip
def test_the_reader_of_the_source_lets_pass(source):
    assert wrongs(source) == []


def test_the_source_holds_no_secret():
    secret = re.compile(r"\bhf_[A-Za-z0-9]{20,}|\bsk-[A-Za-z0-9]{20,}|\bghp_\w{20,}|://[^/\s:@\"']+:[^/\s@\"'{]+@")
    assert [name(file) for file in SOURCES if secret.search(file.read_text(encoding="utf-8"))] == []


def test_every_revision_in_conf_is_a_commit():
    """But where the path is the user's to give; that each choice is pinned, in code too, stands in test_configs.py."""
    files = [OmegaConf.load(file) for file in (ROOT / "conf").rglob("*.yaml")]
    given = [file for file in files if OmegaConf.is_missing(file, "path")]
    assert all(file.get("revision") is None for file in given)
    revisions = [value for file in files if file not in given for value in _values(file, "revision")]
    assert len(revisions) >= 5
    assert all(re.fullmatch(r"[0-9a-f]{40}", str(revision)) for revision in revisions)


def _values(node, wanted):
    if OmegaConf.is_dict(node):
        for key in node:
            child = node._get_node(key)
            if key == wanted:
                yield child._value()
            yield from _values(child, wanted)


def test_dependencies_are_bounded_and_their_tested_versions_pinned():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    block = text.split("dependencies = [", 1)[1].split("\n]", 1)[0]
    wanted = [Requirement(line) for line in re.findall(r'^\s*"([^"]+)"', block, re.MULTILINE)]
    assert len(wanted) >= 15
    pins = [Requirement(line) for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if line]
    assert all([s.operator for s in pin.specifier] == ["=="] and not pin.url for pin in pins)
    pinned = {re.sub(r"[-_.]+", "-", pin.name).lower(): next(iter(pin.specifier)).version for pin in pins}
    for requirement in wanted:
        assert list(requirement.specifier), requirement
        assert requirement.specifier.contains(pinned[re.sub(r"[-_.]+", "-", requirement.name).lower()]), requirement
