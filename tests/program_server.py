"""Programs run as a user runs them, but for their imports, which a server has done once for all."""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

import killed_run
from hydra.core.global_hydra import GlobalHydra


def call(arguments, cwd, environment, before=None):
    """Run `before`, then `python -m *arguments`, in a process of its own; return what it said and how it ended."""
    with tempfile.TemporaryDirectory() as folder:
        places = [str(Path(folder) / name) for name in ("stdout", "stderr")]
        process = start(arguments, cwd, environment, *places, before)
        process.join(240)
        if process.is_alive():
            process.kill()
            raise TimeoutError(f"{arguments} took more than 240 s")
        out, err = (Path(place).read_text(encoding="utf-8") for place in places)
    return subprocess.CompletedProcess(arguments, process.exitcode, out, err)


def start(arguments, cwd, environment, stdout=os.devnull, stderr=os.devnull, before=None):
    """Do as `call` and return the process at once; what it says goes into files."""
    killed_run.serve()
    process = killed_run.PROCESSES.Process(target=_run, args=(arguments, str(cwd), environment, stdout, stderr, before))
    process.start()
    return process


def _run(arguments, cwd, environment, stdout, stderr, before):
    for number, place in ((1, stdout), (2, stderr)):
        handle = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, number)
    sys.stdout, sys.stderr = (
        os.fdopen(os.dup(number), "w", buffering=1, encoding="utf-8") for number in (1, 2)
    )  # fmt: skip
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    GlobalHydra.instance().clear()
    multiprocessing.set_start_method("fork", force=True)  # as in a program; a forkserver of its own would import all
    sys.path.insert(0, environment["PYTHONPATH"].split(os.pathsep)[-1])
    program, *words = arguments
    sys.argv = [program, *words]
    if before:
        before()
    try:
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
