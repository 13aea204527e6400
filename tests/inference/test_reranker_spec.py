import shutil

import pytest
from conftest import MINILM

from crossrank.inference.reranker_spec import RerankerSpec
from crossrank.models.backbones import RandomInit
from crossrank.models.export import export


@pytest.fixture(scope="module")
def folder(tmp_path_factory, encoder):
    model = RandomInit(MINILM, "bert", hidden_size=16, layers=1).build(1)
    return export(model, encoder, tmp_path_factory.mktemp("spec") / "run" / "export")


def test_its_settings_reach_the_reranker_and_a_runs_folder_stands_for_its_export(folder):
    spec = RerankerSpec(str(folder.parent), 32, 77, "bf16")
    assert spec.asset.path == str(folder)
    loaded = spec.load()
    assert (loaded.max_length, loaded.scorer.tokens_per_batch, str(loaded.scorer.autocast)) == (
        32,
        77,
        "torch.bfloat16",
    )


def test_the_identity_changes_with_the_weights_and_every_setting_and_not_with_the_place(folder, tmp_path):
    known = RerankerSpec(str(folder)).identity()
    shutil.copytree(folder, tmp_path / "copy")
    assert RerankerSpec(str(tmp_path / "copy")).identity() == known
    for spec in (
        RerankerSpec(str(folder), 32),
        RerankerSpec(str(folder), None, 9),
        RerankerSpec(str(folder), None, None, "bf16"),
    ):
        assert len([key for key, value in spec.identity().items() if value != known[key]]) == 1
    weights = tmp_path / "copy" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    assert RerankerSpec(str(tmp_path / "copy")).identity()["reranker"] != known["reranker"]
