"""An export that is made again must be the one that the run ended with."""

import json
import shutil

import pytest
import torch
from conftest import run_program
from safetensors.torch import load_file

from crossrank.data.lineage_record import LineageRecord
from crossrank.errors import ConfigError, DataError, ExportError
from crossrank.reexport import reexport
from crossrank.verify import verify

RESULTS = ("result.json", "export", "report.md", "report.html")


@pytest.fixture
def run_dir(smoke_run, tmp_path):
    """A finished run that may be changed."""
    return shutil.copytree(smoke_run.folder, tmp_path / "run")


def _contents(folder):
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_it_is_the_one_that_the_run_ended_with(run_dir, smoke_run):
    before = _contents(run_dir / "export")
    shutil.rmtree(run_dir / "export")
    made = reexport(run_dir)
    assert (made.folder, made.step) == (run_dir / "export", 3)
    assert _contents(run_dir / "export") == before
    assert [row["consumer"] for row in made.parity][1:] == ["crossrank", "sentence-transformers", "transformers"]
    assert made.table().row_count == 4


def test_what_was_changed_in_it_is_repaired_and_the_run_is_whole_again(run_dir, smoke_run):
    config = run_dir / "export" / "config.json"
    config.write_text(config.read_text().replace('"mean"', '"cls"'))
    found = {finding.step: finding.verdict for finding in verify(run_dir)}
    assert found["export/config.json"] == "differs"
    reexport(run_dir)
    found = {finding.step: finding.verdict for finding in verify(run_dir)}
    mine = {step: verdict for step, verdict in found.items() if step.startswith(("export/", "checkpoints/"))}
    assert set(mine.values()) == {"same"}
    assert {"export/config.json", "export/parity.json", "checkpoints/best.ckpt"} <= set(mine)


def test_another_folder_holds_the_same_and_the_runs_own_record_stays(run_dir, tmp_path):
    before = _contents(run_dir)
    reexport(run_dir, tmp_path / "elsewhere")
    assert _contents(run_dir) == before
    assert _contents(tmp_path / "elsewhere") == _contents(run_dir / "export")
    reexport(run_dir, tmp_path / "elsewhere")  # an export may be replaced


def test_a_folder_of_something_else_is_not_replaced(run_dir, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letters").write_text("dear")
    for folder in (tmp_path / "home", tmp_path / "home" / "letters", run_dir):
        with pytest.raises(ExportError, match="would be replaced, and is no export"):
            reexport(run_dir, folder)
    assert (tmp_path / "home" / "letters").read_text() == "dear"


def test_a_run_that_was_stopped_is_exported_as_far_as_it_came(run_dir):
    """Its record names no files yet; it names none afterwards, for it has not finished."""
    for name in RESULTS:
        place = run_dir / name
        shutil.rmtree(place) if place.is_dir() else place.unlink()
    record = json.loads((run_dir / "lineage.json").read_text())
    (run_dir / "lineage.json").write_text(json.dumps(record | {"files": {}}))
    assert reexport(run_dir).step == 3
    assert json.loads((run_dir / "lineage.json").read_text())["files"] == {}
    assert (run_dir / "export" / "calibration.json").is_file()


def test_of_a_run_that_evaluated_nothing_the_last_weights_are_exported(run_dir):
    (run_dir / "checkpoints" / "best.ckpt").unlink()
    shutil.rmtree(run_dir / "evaluations")
    record = json.loads((run_dir / "lineage.json").read_text())
    record["files"].pop("checkpoints/best.ckpt")
    (run_dir / "lineage.json").write_text(json.dumps(record))
    assert reexport(run_dir).step == 6
    assert not (run_dir / "export" / "calibration.json").exists()


def test_an_average_that_was_kept_is_exported_again_and_not_the_best_step(run_dir):
    saved = torch.load(run_dir / "checkpoints" / "best.ckpt", weights_only=True)
    name = "model.classifier.classifier.weight"
    saved["state_dict"][name] = saved["state_dict"][name] * 2
    saved["global_step"] = 6
    torch.save(saved, run_dir / "checkpoints" / "averaged.ckpt")
    assert reexport(run_dir).step == 3  # the run did not keep it
    record = LineageRecord.read(run_dir)
    files = [run_dir / file for file in record.files]
    record.with_files(run_dir, [*files, run_dir / "checkpoints" / "averaged.ckpt"]).write(run_dir)
    assert reexport(run_dir).step == 6
    weights = load_file(run_dir / "export" / "model.safetensors")
    assert torch.equal(weights["classifier.weight"], saved["state_dict"][name])
    assert {"checkpoints/best.ckpt", "checkpoints/averaged.ckpt"} <= set(LineageRecord.read(run_dir).files)
    (run_dir / "checkpoints" / "averaged.ckpt").unlink()
    with pytest.raises(ExportError, match=r"averaged.ckpt: no such file"):
        reexport(run_dir)


def test_adapters_are_exported_again_as_the_plain_model_that_they_make(smoke_run, tmp_path):
    run_dir = tmp_path / "run"
    words = ["experiment=smoke", "adapter=lora", f"hydra.run.dir={run_dir}", f"cache_dir={smoke_run.cache}"]
    done = run_program("src.train", *words)
    assert done.returncode == 0, done.stderr
    before = _contents(run_dir / "export")
    assert json.loads(before["parity.json"])[0]["consumer"] == "crossrank, in memory, packed"
    shutil.rmtree(run_dir / "export")
    reexport(run_dir)
    assert _contents(run_dir / "export") == before


def _spoilt(run_dir):
    (run_dir / "checkpoints" / "best.ckpt").write_bytes(b"not what it was")


def _unrecorded(run_dir):
    """As in a run that was stopped, of whose checkpoint nothing is recorded."""
    _spoilt(run_dir)
    record = json.loads((run_dir / "lineage.json").read_text())
    (run_dir / "lineage.json").write_text(json.dumps(record | {"files": {}}))


def _of_another_model(run_dir):
    saved = torch.load(run_dir / "checkpoints" / "best.ckpt", weights_only=True)
    saved["state_dict"].pop("model.classifier.head.dense.weight")
    torch.save(saved, run_dir / "checkpoints" / "best.ckpt")
    record = json.loads((run_dir / "lineage.json").read_text())
    (run_dir / "lineage.json").write_text(json.dumps(record | {"files": {}}))


@pytest.mark.parametrize(
    ("spoil", "kind", "said"),
    [
        (_spoilt, ExportError, "is not the file that the run ended with"),
        (_unrecorded, ExportError, "is no checkpoint that can be read"),
        (_of_another_model, ExportError, "holds other weights than .* config describes: .*head.dense.weight"),
        (lambda run: (run / "checkpoints" / "best.ckpt").unlink(), ExportError, "no such file, and without it nothing"),
        (lambda run: (run / "lineage.json").unlink(), DataError, "no lineage.json"),
    ],
)
def test_what_cannot_be_exported_is_refused_in_one_sentence(spoil, kind, said, run_dir):
    before = _contents(run_dir / "export")
    spoil(run_dir)
    with pytest.raises(kind, match=said) as error:
        reexport(run_dir)
    assert "\n" not in str(error.value)
    assert _contents(run_dir / "export") == before


def test_what_is_missing_is_said_before_anything_is_loaded(run_dir, monkeypatch):
    monkeypatch.setattr("crossrank.reexport.build_parts", lambda *_: pytest.fail("something was loaded"))
    with pytest.raises(ConfigError, match="'no-such-python' is no program"):
        reexport(run_dir, interpreters=["no-such-python"])
    monkeypatch.setattr("crossrank.models.onnx_export.PACKAGES", ("no_such_package",))
    with pytest.raises(ConfigError, match="no_such_package not installed"):
        reexport(run_dir, onnx=True)
