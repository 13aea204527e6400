"""The program as a person calls it; what it finds is in test_verify.py."""

import json
import shutil

import yaml
from conftest import run_program


def test_exit_codes_and_sentences(smoke_run, tmp_path):
    runs = {name: shutil.copytree(smoke_run.folder, tmp_path / name) for name in ("other", "gone", "old", "bad")}
    config = yaml.safe_load((runs["other"] / "config.yaml").read_text())
    config["policy"]["negatives"] = 2
    (runs["other"] / "config.yaml").write_text(yaml.safe_dump(config))
    (runs["gone"] / "export" / "model.safetensors").unlink()
    (runs["old"] / "lineage.json").unlink()
    (runs["bad"] / "config.yaml").write_text(json.dumps(config | {"policy": {"_target_": "os.system"}}))
    calls = {
        (str(smoke_run.folder),): (0, "the run is what was recorded"),
        (str(runs["other"]),): (1, "policy differs: negatives was 5 and is 2"),
        (str(runs["gone"]), "cache_dir=nowhere"): (3, "export/model.safetensors cannot be checked"),
        (str(runs["old"]),): (2, "no lineage.json; it is no run, or one made before crossrank recorded"),
        (str(runs["bad"]),): (2, "policy._target_: 'os.system' is no class or function of"),
        ("nowhere",): (2, "nowhere: no lineage.json"),
        (): (2, "run: required and missing"),
        ("a", "b"): (2, "one run at a time, got 2: a, b"),
    }
    for words, (code, message) in calls.items():
        done = run_program("src.verify", *words)
        said = done.stdout + done.stderr
        assert (done.returncode, message in said) == (code, True), f"{words}: {done.returncode}, {said}"
        assert "Traceback" not in said
        assert ("│ cached pool " in said) == (code != 2)
