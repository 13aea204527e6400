"""Says what a fault of the machine means for a run, in one sentence, with the knob to turn."""

import errno
import json
import logging
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from crossrank.errors import CrossrankError, TrainingError
from crossrank.redaction import redact
from crossrank.resume import FAILURE

log = logging.getLogger(__name__)

OUT_OF_MEMORY = re.compile(r"out of memory|can't allocate memory|not enough memory", re.IGNORECASE)
OF_A_WORKER = re.compile(r"Caught \w+ in DataLoader worker process \d+\.\n")
WORKER_DIED = re.compile(r"DataLoader worker \(pid\(?s?\)? .*?\) (is killed by signal|exited unexpectedly)")


@contextmanager
def told(run_dir: Path) -> Iterator[None]:
    """Turn a full disk, a lack of memory and a killed worker into TrainingError; anything else passes.

    Of an error of ours that a process that collates batches raised, torch makes a whole stack trace: it is one sentence
    again.

    Raises:
        TrainingError: says what happened, what is safe, and how the run goes on.
    """
    go_on = f"what the run saved is whole, go on with resume={run_dir}"
    try:
        yield
    except CrossrankError as error:
        if not OF_A_WORKER.match(str(error)):
            raise
        raise type(error)(_last_line(error)) from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        free = shutil.disk_usage(run_dir if run_dir.exists() else Path.cwd()).free / 1e9
        place = error.filename or run_dir
        raise TrainingError(
            f"the disk is full while writing {place} ({free:.2f} GB free): free some space; {go_on}"
        ) from error
    except MemoryError as error:
        raise TrainingError(_memory(go_on)) from error
    except RuntimeError as error:  # torch has an error of its own for CUDA only
        if OUT_OF_MEMORY.search(str(error)):
            raise TrainingError(_memory(go_on)) from error
        if WORKER_DIED.search(str(error)):
            raise TrainingError(
                f"a process that collates batches was killed, as when memory runs out: lower data.workers; {go_on}"
            ) from error
        raise


@contextmanager
def noted(run_dir: Path) -> Iterator[None]:
    """Have `<run_dir>/failure.json` say what an error that ends a run was, until the run is tried again."""
    (run_dir / FAILURE).unlink(missing_ok=True)
    try:
        yield
    except Exception as error:
        note_failure(run_dir, error)
        raise


def note_failure(run_dir: Path, error: Exception) -> None:
    """Write down what ended a run; where not even that can be written, the error itself is what matters."""
    facts = {"error": redact(str(error)), "type": type(error).__name__}
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        (run_dir / FAILURE).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    except OSError:
        return


def left_behind(write: Callable[[], Path], again: str) -> Path | None:
    """Write a page at the end of a long computation, which a page that fails must not spoil: None, with a warning.

    `again` is the command that writes it once what went wrong is mended.
    """
    try:
        return write()
    except Exception as error:  # what was computed is worth more than its page
        said = " ".join(str(error).split())
        log.warning("a page was not written (%s: %s); once that is mended: %s", type(error).__name__, said, again)
        return None


def _last_line(error: CrossrankError) -> str:
    """Return what follows the error's name where it stands last in a stack trace."""
    return str(error).rpartition(f"\n{type(error).__module__}.{type(error).__qualname__}: ")[2].strip()


def _memory(go_on: str) -> str:
    return (
        "out of memory: lower model.max_length or data.pairs_per_step, raise trainer.accumulate_grad_batches or "
        "trainer.gradient_cache or set +model.recompute=true, which change no gradient but for rounding; if an "
        f"evaluation ran, lower callbacks.evaluation.tokens_per_batch; {go_on}"
    )
