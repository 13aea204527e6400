"""The study of a search: which settings have been tried, and what came of them so far."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from crossrank.errors import ConfigError
from crossrank.resume import ORIGIN

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial, Trial

NAME = "crossrank"
FILES = {"sqlite": "study.db", "journal": "study.journal"}
STARTUP = 5  # jobs that are drawn at random and never pruned, before there is anything to learn from


def open_study(folder: Path, storage: str, seed: int = 12) -> "Study":
    """Open a search's study in a sweep's folder, or begin it; `storage` is sqlite or journal.

    It maximises, draws by a tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011), and prunes what at a step
    is below the median of the jobs before it (Golovin et al., KDD 2017, section 3.2). What is drawn next depends on the
    seed and on how many jobs there are.

    Raises:
        ConfigError: there is no such storage, or optuna is not installed.
    """
    if storage not in FILES:
        raise ConfigError([f"hydra.sweeper.storage: it is one of {', '.join(FILES)}, got {storage!r}"])
    try:
        import optuna
        from optuna.storages import JournalStorage, RDBStorage
        from optuna.storages.journal import JournalFileBackend
    except ImportError:
        raise ConfigError(["sweep: a search needs optuna; install it with: pip install -e '.[sweeps]'"]) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    file = folder / FILES[storage]
    kept = (
        JournalStorage(JournalFileBackend(str(file)))
        if storage == "journal"
        else RDBStorage(f"sqlite:///{file}", engine_kwargs={"connect_args": {"timeout": 100}})
    )
    study = optuna.create_study(
        storage=kept, study_name=NAME, direction="maximize", load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP),
    )  # fmt: skip
    study.sampler = optuna.samplers.TPESampler(n_startup_trials=STARTUP, seed=seed + len(study.trials))
    return study


def unfinished(study: "Study") -> Sequence["FrozenTrial"]:
    """Return the trials that were begun and of which nothing was told."""
    from optuna.trial import TrialState

    return study.get_trials(states=(TrialState.RUNNING,))


def trial_of(run_dir: Path) -> "Trial | None":
    """Return the trial whose job lies in a folder, None where it is no job of a search or its trial has ended."""
    storage = next((kind for kind, name in FILES.items() if (run_dir.parent / name).exists()), None)
    origin = run_dir / ORIGIN
    if storage is None or not origin.is_file():
        return None
    from optuna.trial import Trial

    words = set(json.loads(origin.read_text(encoding="utf-8"))["overrides"])
    study = open_study(run_dir.parent, storage)
    for trial in unfinished(study):
        if words.issuperset(f"{key}={value}" for key, value in trial.params.items()):
            return Trial(study, trial._trial_id)
    return None
