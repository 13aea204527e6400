"""Configs composed as Hydra does, without reading the same files for every test."""

import copy
from functools import cache
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

CONF = Path(__file__).parents[1] / "conf"
GROUPS = {folder.name for folder in CONF.iterdir() if folder.is_dir()}


@cache
def _of_files(root: str, *choices: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(root, list(choices))


def composed(*overrides: str, root: str = "train") -> DictConfig:
    """Compose a config as Hydra does, whose own function for values is called; files are read once for all tests."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    files = [override for override in parsed if override.key_or_group in GROUPS or "/" in override.key_or_group]
    cfg = copy.deepcopy(_of_files(root, *(override.input_line for override in files)))
    ConfigLoaderImpl._apply_overrides_to_config([override for override in parsed if override not in files], cfg)
    return cfg
