"""Which process of a training this is, what asks it to stop, and a training in a process of its own."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from crossrank.data.cache import replace_text
from crossrank.errors import ConfigError, TrainingError

RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")  # where torchrun, Lightning and SLURM tell it
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)  # the last one is SLURM's, with sbatch --signal=B:USR1@120


def rank() -> int:
    """Return which of the processes of a training this is; 0 is the first.

    Raises:
        ConfigError: the environment says what is no number.
    """
    name = told_by()
    if name is None:
        return 0
    if not re.fullmatch(r"[0-9]{1,9}", os.environ[name]):
        raise ConfigError([f"environment variable {name}: counts processes from 0, got {os.environ[name]!r}; unset it"])
    return int(os.environ[name])


def told_by() -> str | None:
    """Return the environment variable that says which process this is, where something else started several."""
    return next((name for name in RANKS if name in os.environ), None)


def run_apart(program: Sequence[str], run_dir: Path, config: str, nodes: int, arguments: Sequence[str]) -> None:
    """Write a run's config, start a program with arguments that have it go on with that run, and wait.

    The processes of a training start the program once more by its command line: that of a sweep would be the sweep.
    Signals are passed on.

    Raises:
        ConfigError: the processes are to be started by something else.
        TrainingError: the training failed, or was killed.
        SystemExit: it was asked to stop and saved its state.
    """
    if nodes > 1 or told_by():
        raise ConfigError(
            ["trainer.devices: in a sweep over several devices a job starts its own processes, on one machine; under "
             "torchrun or srun start the jobs one by one, without -m"]
        )  # fmt: skip
    replace_text(run_dir / "config.yaml", config)
    sys.stdout.flush()
    # in a session of its own it gets a terminal's Ctrl-C once, from here
    with subprocess.Popen([*program, *arguments], start_new_session=True) as process, _passed_on(process):
        code = process.wait()
    if code > 128:
        raise SystemExit(code)
    if code:
        end = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        raise TrainingError(f"the job in {run_dir} {end}; go on with resume={run_dir}")


@contextmanager
def _passed_on(process: subprocess.Popen[bytes]) -> Iterator[None]:
    before = {number: signal.signal(number, lambda got, _: process.send_signal(got)) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
