"""Which run a command goes on with, and whether it is still the same run.

`resume=RUN` takes the config that RUN was started with; `resume=auto` takes the newest unfinished run that has the
composed config, or starts a new one. A job of a sweep is told by its config: its folder is called after it.
"""

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from crossrank.errors import ResumeError

log = logging.getLogger(__name__)

CONFIG, RESULT = "config.yaml", "result.json"
HOW = (  # what a run may be taken up with another of, at the same pairs a step
    "trainer.devices", "trainer.num_nodes", "trainer.strategy", "trainer.accumulate_grad_batches", "data.workers",
)  # fmt: skip
OWN_KEYS = ("resume", "resume_anyway", "retry_failed", "run_dir", "cache_dir", "hydra")  # say where and how, not what


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


def job_key(cfg: DictConfig) -> str:
    """Return 8 hex digits of what a config trains, wherever it lies and whoever is told of it."""
    try:
        what: Any = {key: value for key, value in identity(cfg).items() if key != "logger"}
    except OmegaConfBaseException:  # the gate will say what is wrong with it
        what = OmegaConf.to_container(cfg)
    return hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()[:8]


def _run_folder(fresh: str, *, _root_: DictConfig) -> str:
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
            if not list(_differences(identity(read_config(folder)), composed)):
                same.append(folder)
        except ResumeError as error:  # one that is damaged is not the one that is sought
            log.warning("%s", error)
    return max(same, key=lambda folder: (folder / CONFIG).stat().st_mtime_ns, default=None)


def continued(cfg: DictConfig, overrides: Sequence[str], run_dir: Path) -> tuple[DictConfig, bool]:
    """Return the config to run with, and whether it goes on with the run in `run_dir`.

    Given no other `overrides`, a run goes on with its own config; others must agree with it, unless `resume_anyway`.

    Raises:
        ResumeError: there is no such run, it has finished, or its config was another; the differences are named.
    """
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
    others = [
        o for o in overrides if not o.lstrip("+~").startswith(("resume=", "resume_anyway=", "hydra.", "cache_dir="))
    ]
    if cfg.resume != "auto" and not others:
        return _moved(saved, run_dir, cfg), True
    differences = list(_differences(identity(saved), identity(cfg)))
    refuse_or_warn(run_dir, "config", differences, cfg.resume_anyway)
    return cfg, True


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
    tree = _at_home(_placed(OmegaConf.to_container(saved), places), str(run_dir))
    moved: DictConfig = OmegaConf.create(tree | {"resume": cfg.resume, "resume_anyway": cfg.resume_anyway})
    return moved


def _at_home(value: Any, run_dir: str) -> Any:
    """Have every part of a run write into its folder, whatever a config that came from elsewhere says."""
    if isinstance(value, dict):
        return {key: run_dir if key == "run_dir" else _at_home(child, run_dir) for key, child in value.items()}
    return [_at_home(child, run_dir) for child in value] if isinstance(value, list) else value


def identity(cfg: DictConfig) -> dict[str, Any]:
    """Return what a config says of a training, wherever the run and its caches lie."""
    mine = OmegaConf.create({key: value for key, value in OmegaConf.to_container(cfg).items() if key != "hydra"})  # type: ignore[union-attr]
    places = {str(mine.get(key)): f"<{key}>" for key in ("run_dir", "cache_dir") if isinstance(mine, DictConfig)}
    mine.run_dir, mine.cache_dir = "<run_dir>", "<cache_dir>"
    tree: Any = OmegaConf.to_container(mine, resolve=True)
    return {key: _placed(value, places) for key, value in tree.items() if key not in OWN_KEYS}


def _placed(value: Any, places: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _placed(child, places) for key, child in value.items()}
    if isinstance(value, list):
        return [_placed(child, places) for child in value]
    if isinstance(value, str):
        for place, name in places.items():
            if value == place or value.startswith(f"{place}/"):
                return name + value[len(place) :]
    return value


def _differences(saved: Any, now: Any, path: str = "") -> Iterator[str]:
    if isinstance(saved, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*saved, *now]):
            yield from _differences(saved.get(key), now.get(key), f"{path}.{key}".lstrip("."))
    elif saved != now and path not in HOW:
        yield f"{path} was {saved!r} and is {now!r}"


register_resolvers()  # a worker process of a parallel sweep gets them with its first import
