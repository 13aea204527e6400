"""Checking a config without building anything, for any program's root; what is refused stands in test_config.py."""

import hydra.utils
import pytest
from conftest import ROOT
from omegaconf import OmegaConf
from test_config import smoke

from crossrank.errors import ConfigError
from crossrank.gate import validate
from crossrank.schema import RerankConfig, RunConfig


def test_validate_accepts_the_same_and_builds_nothing(monkeypatch):
    monkeypatch.setattr(hydra.utils, "instantiate", lambda *args, **options: pytest.fail("built"))
    validate(smoke(), RunConfig)


def test_the_gate_of_another_root():
    cfg = OmegaConf.load(ROOT / "conf" / "rerank.yaml")
    del cfg["hydra"], cfg["defaults"]
    required = sorted(OmegaConf.missing_keys(cfg))
    assert "reranker" in required
    with pytest.raises(ConfigError) as error:
        validate(OmegaConf.merge(cfg, {"rerank_k": 0, "topk": 3}), RerankConfig)
    problems = error.value.problems
    assert [p.split(": ")[0] for p in problems] == [*required, "rerank_k", "topk"]
    assert "reranker: required and missing; give it as reranker=..." in problems
    assert problems[-1].endswith("did you mean 'top_k'?")
    validate(OmegaConf.merge(cfg, dict.fromkeys(required, "given")), RerankConfig)
