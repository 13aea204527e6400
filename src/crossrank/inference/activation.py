"""The activation that a model's files state, which turns its logits into the scores that users see."""

import json
import logging
from pathlib import Path
from typing import Any

from torch import nn

log = logging.getLogger(__name__)

TRUSTED = "torch.nn."  # whatever else is named could be anybody's code


def stated_activation(folder: Path) -> nn.Module:
    """Return what sentence-transformers applies to the logits of the model in `folder`: Sigmoid where nothing is said.

    Its own file, written with modules.json since version 5.4, goes before config.json, and that before the key that
    versions below 4 wrote. A name that is no module of torch.nn is left out with a warning.
    """
    config = _read(folder / "config.json")
    of_its_own = _read(folder / "config_sentence_transformers.json") if (folder / "modules.json").is_file() else {}
    within = config.get("sentence_transformers")
    named = (
        of_its_own.get("activation_fn")
        or (within.get("activation_fn") if isinstance(within, dict) else None)
        or config.get("sbert_ce_default_activation_function")
    )
    if named is None:
        return nn.Sigmoid()
    try:
        return _of_torch(str(named))
    except (LookupError, TypeError) as error:
        log.warning("%s states the activation %r, which is left out for Sigmoid: %s", folder, named, error)
        return nn.Sigmoid()


def _of_torch(name: str) -> nn.Module:
    kind = getattr(nn, name.rpartition(".")[2], None) if name.startswith(TRUSTED) else None
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise LookupError(f"it is no module of {TRUSTED.rstrip('.')}")
    return kind()


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    content = json.loads(file.read_text(encoding="utf-8"))
    return content if isinstance(content, dict) else {}
