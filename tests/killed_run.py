"""A training that kills its process at a chosen point; a file of its own, which imports in seconds."""

import gc
import multiprocessing
import os
import signal
import sys
import threading
from functools import cache, partial
from multiprocessing.forkserver import ensure_running

import sentence_transformers  # noqa: F401  # every training ends with it: an export is checked
from compositions import composed

import crossrank.outcome as outcome
import crossrank.run as run
import crossrank.training.checkpoints as checkpoints
from crossrank.callbacks.evaluation import PeriodicEvaluation
from crossrank.callbacks.step_rng import StepKeyedRNG
from crossrank.config import build_training_run
from crossrank.data import prepared_pool
from crossrank.evaluation.store import EvaluationStore
from crossrank.inference.parity import ParityGate
from crossrank.models import backbones
from crossrank.quiet import quieten
from crossrank.resume import register_resolvers
from crossrank.run import execute

PROCESSES = multiprocessing.get_context("forkserver")  # torch's threads would not survive a fork of the tests' process
POINTS = {  # what is called at a point; the process dies at the n-th call, or a while after
    "micro-batch": (StepKeyedRNG, "on_train_batch_start"),
    "checkpoint": (checkpoints.AtomicCheckpointIO, "save_checkpoint"),
    "written": (checkpoints, "file_fingerprint"),  # a state that is not yet under its name
    "scoring": (PeriodicEvaluation, "_evaluate"),
    "evaluation": (EvaluationStore, "write"),
    "mining": (prepared_pool, "mine"),
    "export": (run, "export_checked"),
    "card": (outcome, "write_card"),
}


def start(*args, **options):
    """Start `train` in a process of its own, which a server that has imported everything once makes at once."""
    serve()
    process = PROCESSES.Process(target=train, args=args, kwargs=options)
    process.start()
    return process


@cache
def serve():
    """Start the server, whose processes begin with all imports done."""
    import pytest

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # Python 3.11's server does not take over sys.path
        PROCESSES.set_forkserver_preload(["killed_run"])
        ensure_running()


def train(overrides, run_dir, resumed=False, kill=None, dropout=0.2, place=None, pages=True):
    """Train; `kill` is (point, n) or (point, n, seconds), `place` what tells a process of several its rank.

    Without `pages` what a run ends with for people to read, and the check of its export, are left out: a fifth of it.
    """
    os.environ.update(place or {})
    multiprocessing.set_start_method("fork", force=True)  # as in a program: workers of a forkserver would be slow
    quieten()
    register_resolvers()
    _with_dropout(dropout)
    if not pages:
        outcome.write_card = run.write_run_report = ParityGate.__call__ = lambda *_: None
    if kill:
        _die_at(*kill)
    cfg = composed("experiment=smoke", f"run_dir={run_dir}", *overrides)
    execute(build_training_run(cfg, resumed))


def _with_dropout(hidden):
    """Give the tiny model what only a generator that is where it was can repeat."""
    plain = backbones._set_dropout
    backbones._set_dropout = lambda config, *_: plain(config, 0.0, hidden)


def _die_at(point, n, seconds=0.0):
    owner, name = POINTS[point]
    original, calls = getattr(owner, name), []

    def counted(*args, **options):
        calls.append(1)
        if len(calls) == n:
            sys.stdout.flush()
            die = partial(os.kill, os.getpid(), signal.SIGKILL)
            threading.Timer(seconds, die).start() if seconds else die()
        return original(*args, **options)

    setattr(owner, name, counted)


composed("experiment=smoke")  # Hydra's parsers are slow at their first words
gc.collect()
gc.freeze()  # or else the collector would write into memory that the server's processes share, and copy it
