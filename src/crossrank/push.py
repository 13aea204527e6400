"""Uploads an export to the hub, or says what would be uploaded."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils._validators import validate_repo_id
from rich.table import Table
from rich.text import Text

from crossrank.data.fingerprint import sha256
from crossrank.errors import ConfigError, ExportError
from crossrank.redaction import redact

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Destination:
    """Where on the hub an export goes: `repo` is `organisation/name`.

    A repository that is not there is made, `private` unless said otherwise; one that is there stays as public as it
    is. `branch` is made where it is missing; with `create_pr` the upload is a pull request.

    Raises:
        ConfigError: `repo` is no such name, or the hub would refuse the combination.
    """

    repo: str
    private: bool = True
    branch: str | None = None
    create_pr: bool = False

    def __post_init__(self) -> None:
        try:
            validate_repo_id(self.repo)
        except HFValidationError as error:
            raise ConfigError([f"push: {' '.join(str(error).split())}"]) from error
        if "/" not in self.repo:
            raise ConfigError([f"push: {self.repo!r} names no owner; give organisation/name"])
        if self.create_pr and self.branch not in (None, "main"):
            raise ConfigError([f"create_pr: a pull request goes to main, not to {self.branch!r}; leave out branch"])


@dataclass(frozen=True)
class UploadedFile:
    """A file by its path in the repository."""

    path: str
    bytes: int
    sha256: str


def to_be_uploaded(folder: Path) -> list[UploadedFile]:
    """Return what an upload of a folder consists of; hidden files stay here."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    named = [(file.relative_to(folder), file) for file in files]
    return [
        UploadedFile(path.as_posix(), file.stat().st_size, sha256(file))
        for path, file in named
        if not any(part.startswith(".") for part in path.parts)
    ]


def refuse_unless_possible() -> None:
    """Check, before anything is computed, that an upload could go through.

    Raises:
        ExportError: the hub is switched off, or there is no token to write with.
    """
    if constants.HF_HUB_OFFLINE:
        raise ExportError("nothing can be uploaded while HF_HUB_OFFLINE is set; unset it, or add dry_run=true")
    if huggingface_hub.get_token() is None:
        raise ExportError(
            "the hub takes an upload with a token only, and there is none: set HF_TOKEN to one that may write, or log "
            "in with: hf auth login"
        )


def push(folder: Path, to: Destination, message: str) -> str:
    """Upload a folder as one commit and return the address of the commit or the pull request.

    Raises:
        ExportError: the hub refuses it or cannot be reached; nothing half-uploaded is visible there.
    """
    refuse_unless_possible()
    hub = huggingface_hub.HfApi(endpoint=constants.ENDPOINT)
    paths = [file.path for file in to_be_uploaded(folder)]
    try:
        hub.create_repo(to.repo, private=to.private, exist_ok=True)
        if to.branch is not None and not to.create_pr:
            hub.create_branch(to.repo, branch=to.branch, exist_ok=True)
        done = hub.upload_folder(
            repo_id=to.repo, folder_path=folder, commit_message=message, revision=to.branch,
            create_pr=to.create_pr, allow_patterns=paths,
        )  # fmt: skip
    except Exception as error:  # httpx, xet and the hub each have their own kinds
        said = redact(" ".join(str(error).split()))
        raise ExportError(f"{to.repo} did not take the upload: {type(error).__name__}: {said}") from error
    log.info("uploaded %d files to %s", len(paths), to.repo)
    return str(done.pr_url or done.commit_url)


def as_table(files: Sequence[UploadedFile]) -> Table:
    """Return one row a file."""
    table = Table("file", "bytes", "sha256")
    for file in files:
        table.add_row(Text(file.path), f"{file.bytes:,}", file.sha256)
    return table
