"""What arrives at a hub, which is a server on this machine: no network is used."""

import hashlib

import huggingface_hub
import pytest
from fake_hub import TOKEN, fake_hub
from huggingface_hub import constants

from crossrank.errors import ConfigError, ExportError
from crossrank.push import Destination, as_table, push, refuse_unless_possible, to_be_uploaded

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the hub's client of its own client


@pytest.fixture
def folder(tmp_path):
    """Something like an export, with a file that must stay here."""
    files = {
        "README.md": b"---\nlicense: mit\n---\n# a model\n", "config.json": b"{}",
        "model.safetensors": b"weights" * 500,
        "onnx/model.onnx": b"graph" * 300, ".cache/state": b"of this machine",
    }  # fmt: skip
    for name, content in files.items():
        (tmp_path / "model" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "model" / name).write_bytes(content)
    return tmp_path / "model"


@pytest.fixture
def hub(monkeypatch):
    with fake_hub() as hub:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # whose bytes a fake could not read back
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield hub


def _wanted(folder):
    return {file.path: (folder / file.path).read_bytes() for file in to_be_uploaded(folder)}


def test_every_byte_arrives_in_one_commit_to_a_private_repository(hub, folder):
    address = push(folder, Destination("org/name"), "Add the model of step 3")
    assert address == f"{hub.address}/org/name/commit/{'a' * 40}"
    repo = hub.repos["org/name"]
    assert repo["visibility"] == "private"
    [(revision, summary, pull, files)] = repo["commits"]
    assert (revision, summary, pull) == ("main", "Add the model of step 3", False)
    assert hub.files(files) == _wanted(folder)
    assert sorted(files) == ["README.md", "config.json", "model.safetensors", "onnx/model.onnx"]
    assert {token for _, token in hub.asked} == {f"Bearer {TOKEN}"}


def test_one_that_is_there_is_added_to_and_a_branch_is_made(hub, folder):
    push(folder, Destination("org/name", private=False), "first")
    (folder / "config.json").write_bytes(b'{"changed": true}')
    push(folder, Destination("org/name", branch="next"), "second")
    repo = hub.repos["org/name"]
    assert repo["visibility"] == "public"  # it stays as it was made
    assert repo["branches"] == ["main", "next"]
    assert [(revision, summary) for revision, summary, *_ in repo["commits"]] == [("main", "first"), ("next", "second")]
    assert hub.files(repo["commits"][1][3])["config.json"] == b'{"changed": true}'


def test_a_pull_request_is_one(hub, folder):
    address = push(folder, Destination("org/name", create_pr=True), "Add it")
    assert address == f"{hub.address}/org/name/discussions/1"
    assert hub.repos["org/name"]["commits"][0][2] is True


def test_what_would_be_uploaded_is_told_without_a_network(folder, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    files = to_be_uploaded(folder)
    assert [file.path for file in files] == ["README.md", "config.json", "model.safetensors", "onnx/model.onnx"]
    assert files[2].bytes == 3500
    assert files[2].sha256 == hashlib.sha256(b"weights" * 500).hexdigest()
    assert as_table(files).row_count == 4


def test_a_refusal_is_one_sentence_without_the_token(hub, folder):
    hub.refuse = (403, f"no rights for {TOKEN} here")
    with pytest.raises(ExportError, match=r"org/name did not take the upload: .*403") as error:
        push(folder, Destination("org/name"), "Add it")
    assert TOKEN not in str(error.value)
    assert "\n" not in str(error.value)
    assert not hub.repos["org/name"]["commits"]


def test_a_token_that_is_not_valid_and_a_hub_that_is_away_are_said_so(hub, folder, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_" + "wrong" * 5)
    with pytest.raises(ExportError, match=r"did not take the upload: .*401"):
        push(folder, Destination("org/name"), "Add it")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ExportError, match="did not take the upload: ConnectError"):
        push(folder, Destination("org/name"), "Add it")


def test_without_a_token_or_offline_nothing_is_begun(hub, monkeypatch, tmp_path):
    refuse_unless_possible()
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(ExportError, match="set HF_TOKEN to one that may write"):
        refuse_unless_possible()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ExportError, match="while HF_HUB_OFFLINE is set"):
        refuse_unless_possible()
    assert not hub.asked


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"repo": "name"}, "push: 'name' names no owner; give organisation/name"),
        ({"repo": "a/b/c"}, "push: "),
        ({"repo": "org/na me"}, "push: "),
        ({"repo": "org/name", "branch": "next", "create_pr": True}, "create_pr: a pull request goes to main"),
    ],
)
def test_a_destination_that_is_none_is_refused(given, said):
    with pytest.raises(ConfigError, match=said):
        Destination(**given)
