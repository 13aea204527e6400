import pytest
from conftest import ROOT, composed
from omegaconf import OmegaConf
from pydantic import ValidationError

from crossrank import schema

ROOTS = {
    "train": schema.RunConfig, "mine": schema.RunConfig, "audit": schema.AuditConfig, "evaluate": schema.EvaluateConfig,
    "compare": schema.CompareConfig, "rerank": schema.RerankConfig, "verify": schema.VerifyConfig,
    "report": schema.ReportConfig, "export": schema.ExportConfig,
}  # fmt: skip
MISSING = {
    "evaluate": ["reranker=x", "evaluators=held_out"], "compare": ["systems=[a,b]"],
    "rerank": ["reranker=x", "query=y", "documents=z"], "verify": ["run=x"], "report": ["run=x"],
    "export": ["run=x"],
}  # fmt: skip
WITHOUT_RUN_DIR = ("compare", "export", "rerank", "report", "verify")


def plain(root: str) -> dict:
    overrides = MISSING.get(root, ["experiment=smoke"])
    cfg = composed(*overrides, *([] if root in WITHOUT_RUN_DIR else ["run_dir=x"]), root=root)
    return OmegaConf.to_container(cfg, resolve=True)


def test_every_program_has_its_schema():
    programs = {file.stem for file in (ROOT / "src").glob("*.py")} - {"__init__"}
    assert programs == set(ROOTS)
    assert all((ROOT / "conf" / f"{name}.yaml").is_file() for name in ROOTS)


@pytest.mark.parametrize("root", ROOTS)
def test_the_roots_own_config_fits_and_one_key_more_does_not(root):
    tree = plain(root)
    ROOTS[root].model_validate(tree)
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        ROOTS[root].model_validate(tree | {"sede": 12})
    for key in tree.keys() - {"teacher", "card"}:
        with pytest.raises(ValidationError, match="Field required"):
            ROOTS[root].model_validate({name: value for name, value in tree.items() if name != key})
