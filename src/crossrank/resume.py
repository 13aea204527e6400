"""Which run a command goes on with, and whether it is still the same run.

`resume=RUN` takes the config that RUN was started with; `resume=auto` takes the newest unfinished run that has the
composed config, or starts a new one. A job of a sweep is told by its config: its folder is called after it.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from crossrank.errors import ResumeError
from crossrank.identity import differences, identity, job_key, placed

log = logging.getLogger(__name__)

CONFIG, RESULT, ORIGIN, FAILURE = "config.yaml", "result.json", "origin.json", "failure.json"


def register_resolvers() -> None:
    """Teach OmegaConf where runs lie.

    `${run_folder:}` is the folder of the run that a config goes on with or starts, `${sweep_name:}` what a sweep is
    called after, `${job_key:}` what the folder of one of its jobs is called.
    """
    OmegaConf.register_new_resolver("run_folder", _run_folder, replace=True)
    OmegaConf.register_new_resolver("sweep_name", _sweep_name, replace=True)
    OmegaConf.register_new_resolver("job_key", _job_key, replace=True)


def _sweep_name(*, _root_: DictConfig) -> str:
    """Return the choice in the group `sweep`; a grid that is spelt out on the command line has none."""
    return str(OmegaConf.select(_root_, "hydra.runtime.choices.sweep") or "grid")


def _job_key(*, _root_: DictConfig) -> str:
    return job_key(_root_)


def _run_folder(fresh: str, *, _root_: DictConfig) -> str:
    again = OmegaConf.select(_root_, "rerun")
    if again is not None:
        name = OmegaConf.select(read_config(Path(again)), "name")
        return str(Path(fresh).parents[1] / str(name) / Path(fresh).name)
    wanted = OmegaConf.select(_root_, "resume")
    if wanted is None:
        return fresh
    if wanted != "auto":
        return str(wanted)
    found = newest_unfinished(Path(fresh).parent, _root_)
    return fresh if found is None else str(found)


def newest_unfinished(runs: Path, cfg: DictConfig) -> Path | None:
    """Return the run in a folder that was started last with this config and has no result yet."""
    composed = identity(cfg)
    same = []
    for folder in (file.parent for file in runs.glob(f"*/{CONFIG}") if not (file.parent / RESULT).exists()):
        try:
            if not list(differences(identity(read_config(folder)), composed)):
                same.append(folder)
        except ResumeError as error:  # one that is damaged is not the one that is sought
            log.warning("%s", error)
    return max(same, key=lambda folder: (folder / CONFIG).stat().st_mtime_ns, default=None)


def continued(cfg: DictConfig, overrides: Sequence[str], run_dir: Path) -> tuple[DictConfig, bool]:
    """Return the config to run with, and whether it goes on with the run in `run_dir`.

    With `rerun` it is the config of that run, to be trained from the start in another folder. Given no other
    `overrides`, a run goes on with its own config; others must agree with it, unless `resume_anyway`.

    Raises:
        ResumeError: there is no such run, it has finished, or its config was another; the differences are named.
    """
    if cfg.rerun is not None:
        return _again(cfg, _chosen(overrides), run_dir), False
    if cfg.resume is None:
        if (run_dir / "metrics.jsonl").exists():
            raise ResumeError(
                f"{run_dir} holds a run already; go on with it by resume={run_dir}, or name another folder"
            )
        return cfg, False
    if not (run_dir / CONFIG).is_file():
        if cfg.resume == "auto":
            return cfg, False
        raise ResumeError(
            f"resume={cfg.resume}: no run there, its {CONFIG} is missing; give a folder such as runs/x/TIME"
        )
    if (run_dir / RESULT).is_file():
        raise ResumeError(f"{run_dir} has finished, its export and report are there; start a new run without resume=")
    saved = read_config(run_dir)
    others = _chosen(overrides)
    if cfg.resume != "auto" and not others:
        return _moved(saved, run_dir, cfg), True
    changed = [f"{key} was {was!r} and is {now!r}" for key, was, now in differences(identity(saved), identity(cfg))]
    refuse_or_warn(run_dir, "config", changed, cfg.resume_anyway)
    return cfg, True


def _chosen(overrides: Sequence[str]) -> list[str]:
    """Return the words of a command line that say what is trained."""
    others = ("resume=", "resume_anyway=", "rerun=", "retry_failed=", "hydra.", "cache_dir=")
    return [word for word in overrides if not word.lstrip("+~").startswith(others)]


def _again(cfg: DictConfig, others: Sequence[str], run_dir: Path) -> DictConfig:
    """Return the config of the run that is to be done again."""
    if others or cfg.resume is not None:
        named = ", ".join([*others, *(["resume"] if cfg.resume is not None else [])])
        raise ResumeError(f"rerun={cfg.rerun} takes that run's own config; leave out {named}, or compose a new run")
    saved = read_config(Path(cfg.rerun))
    if run_dir.resolve() == Path(cfg.rerun).resolve() or (run_dir / "metrics.jsonl").exists():
        raise ResumeError(f"{run_dir} holds a run already; give another folder with hydra.run.dir=FOLDER")
    moved = _moved(saved, run_dir, cfg)
    moved.rerun = str(cfg.rerun)
    return moved


def refuse_or_warn(run_dir: Path, kind: str, differences: Sequence[str], anyway: bool) -> None:
    """Say what has changed since a run was started.

    Raises:
        ResumeError: something has, and the run is not to go on all the same.
    """
    if not differences:
        return
    told = "; ".join(differences)
    if not anyway:
        raise ResumeError(
            f"{run_dir}: its {kind} is not what it was: {told}; give what it was, or resume_anyway=true for a run "
            "that is no longer the one that was started"
        )
    log.warning("%s goes on although its %s is not what it was: %s", run_dir, kind, told)


def read_config(run_dir: Path) -> DictConfig:
    """Return the config that a run was started with, as it stands in its folder.

    Raises:
        ResumeError: it cannot be read, is no run's, or holds something that would have to be resolved.
    """
    try:
        cfg = OmegaConf.load(run_dir / CONFIG)
    except Exception as error:  # yaml and OmegaConf raise many kinds
        raise ResumeError(f"{run_dir / CONFIG} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(cfg, DictConfig) or not all(isinstance(key, str) for key in cfg):
        raise ResumeError(f"{run_dir / CONFIG} holds no config")
    tree: Any = OmegaConf.to_container(cfg)
    if not all(isinstance(tree.get(key), str) for key in ("run_dir", "cache_dir")):
        raise ResumeError(f"{run_dir / CONFIG} says no run_dir and cache_dir: it is not the config of a run")
    if _interpolates(tree):  # a run writes what it was resolved to; what else would be read from here or from where?
        raise ResumeError(f"{run_dir / CONFIG} holds '${{', which no run writes; resolve it by hand if you trust it")
    return cfg


def _interpolates(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_interpolates, value.values())) or any(map(_interpolates, value))
    return any(map(_interpolates, value)) if isinstance(value, list) else isinstance(value, str) and "${" in value


def _moved(saved: DictConfig, run_dir: Path, cfg: DictConfig) -> DictConfig:
    """Return a run's config for the folder in which the run now lies, and this command's cache."""
    places = {str(saved.run_dir): str(run_dir), str(saved.cache_dir): str(cfg.cache_dir)}
    tree = _at_home(placed(OmegaConf.to_container(saved), places), str(run_dir))
    moved: DictConfig = OmegaConf.create(tree | {"resume": cfg.resume, "resume_anyway": cfg.resume_anyway})
    return moved


def _at_home(value: Any, run_dir: str) -> Any:
    """Have every part of a run write into its folder, whatever a config that came from elsewhere says."""
    if isinstance(value, dict):
        return {key: run_dir if key == "run_dir" else _at_home(child, run_dir) for key, child in value.items()}
    return [_at_home(child, run_dir) for child in value] if isinstance(value, list) else value


register_resolvers()  # a worker process of a parallel sweep gets them with its first import
