"""What a config says of a training, wherever the run and its caches lie: by it runs and jobs are told apart."""

import hashlib
import json
from collections.abc import Collection, Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

HOW = (  # what a run may be taken up with another of, at the same pairs a step
    "trainer.devices", "trainer.num_nodes", "trainer.strategy", "trainer.accumulate_grad_batches",
    "trainer.gradient_cache", "data.workers",
)  # fmt: skip
OWN_KEYS = (
    "resume",
    "resume_anyway",
    "retry_failed",
    "rerun",
    "run_dir",
    "cache_dir",
    "hydra",
    "card",
)  # say where, how and to whom, not what


def identity(cfg: DictConfig) -> dict[str, Any]:
    """Return what a config says of a training, wherever the run and its caches lie."""
    mine = OmegaConf.create({key: value for key, value in OmegaConf.to_container(cfg).items() if key != "hydra"})  # type: ignore[union-attr]
    places = {str(mine.get(key)): f"<{key}>" for key in ("run_dir", "cache_dir") if isinstance(mine, DictConfig)}
    mine.run_dir, mine.cache_dir = "<run_dir>", "<cache_dir>"
    tree: Any = OmegaConf.to_container(mine, resolve=True)
    return {key: placed(value, places) for key, value in tree.items() if key not in OWN_KEYS}


def job_key(cfg: DictConfig) -> str:
    """Return 8 hex digits of what a config trains, wherever it lies and whoever is told of it."""
    try:
        what: Any = {key: value for key, value in identity(cfg).items() if key != "logger"}
    except OmegaConfBaseException:  # the gate will say what is wrong with it
        what = OmegaConf.to_container(cfg)
    return hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()[:8]


def placed(value: Any, places: dict[str, str]) -> Any:
    """Return a config's tree with the folders that are keys of `places`, and what lies in them, somewhere else."""
    if isinstance(value, dict):
        return {key: placed(child, places) for key, child in value.items()}
    if isinstance(value, list):
        return [placed(child, places) for child in value]
    if isinstance(value, str):
        for place, name in places.items():
            if value == place or value.startswith(f"{place}/"):
                return name + value[len(place) :]
    return value


def flat(tree: Any, path: str = "") -> dict[str, Any]:
    """Return the values of a config's tree by keys with dots; a list is a value."""
    if not isinstance(tree, dict) or not tree:
        return {path: tree} if path else {}
    parts = (flat(child, f"{path}.{name}".lstrip(".")) for name, child in tree.items())
    return {key: value for part in parts for key, value in part.items()}


def differences(saved: Any, now: Any, path: str = "", how: Collection[str] = HOW) -> Iterator[tuple[str, Any, Any]]:
    """Yield each key in which two configs' trees differ, and its two values; `how` it is trained does not count."""
    if isinstance(saved, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*saved, *now]):
            yield from differences(saved.get(key), now.get(key), f"{path}.{key}".lstrip("."), how)
    elif saved != now and path not in how:
        yield path, saved, now
