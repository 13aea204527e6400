"""An export that scores otherwise anywhere must not pass; what is tampered with here is what may go wrong in one."""

import json
import shutil

import exported
import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from crossrank.errors import ExportError
from crossrank.inference import parity
from crossrank.inference.in_memory import InMemory
from crossrank.inference.parity import Agreement, ParityGate, agreements
from crossrank.models.export import export

OURS, PEERS = ["crossrank"], ["sentence-transformers", "transformers"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A model, its encoder and its export, which nothing may change."""
    model, encoder = exported.built("modernbert-mean")
    return model, encoder, export(model, encoder, tmp_path_factory.mktemp("parity") / "model")


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole[2], tmp_path / "model")


def _edit(name, **changes):
    def edit(folder):
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(content | changes))

    return edit


def _weight(name, change):
    def edit(folder):
        weights = load_file(folder / "model.safetensors")
        weights[name] = change(weights[name])
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    return edit


def _vocabulary(folder):
    """Two words swap their ids."""
    content = json.loads((folder / "tokenizer.json").read_text())
    words = content["model"]["vocab"]
    words["sort"], words["list"] = words["list"], words["sort"]
    (folder / "tokenizer.json").write_text(json.dumps(content))


def _identity(folder):
    _edit("config.json", sentence_transformers={"activation_fn": "torch.nn.modules.linear.Identity"})(folder)


@pytest.mark.parametrize("kind", exported.KINDS)
def test_an_export_that_is_whole_passes_and_says_so(kind, whole, tmp_path, caplog):
    model, encoder = exported.built(kind)
    folder = export(model, encoder, tmp_path / "model", ParityGate(model, encoder))
    rows = json.loads((folder / "parity.json").read_text())
    assert [row["consumer"] for row in rows] == ["crossrank, in memory, fused", *OURS, *PEERS]
    for row in rows:
        assert row["pairs"] == len(InMemory(model, encoder).padded) > 20
        assert 0 <= row["largest_gap"] <= row["tolerance"] == 1e-5
        assert row["version"][0].isdigit()
        assert row["note"] == ""
    assert "scores the same in 3 consumers" in caplog.text


@pytest.mark.parametrize(
    ("tamper", "named"),
    [
        (_edit("config.json", classifier_pooling="cls"), [*OURS, *PEERS]),
        (_edit("config.json", local_attention=4, sliding_window=4), [*OURS, *PEERS]),
        (_edit("config.json", norm_eps=1e-2), [*OURS, *PEERS]),
        (_edit("config.json", classifier_activation="relu"), [*OURS, *PEERS]),
        (_edit("config.json", num_hidden_layers=3), [*OURS, *PEERS]),
        (_weight("classifier.bias", lambda weight: weight + 1e-3), [*OURS, *PEERS]),
        (_weight("classifier.weight", lambda weight: weight * float("nan")), [*OURS, *PEERS]),
        (_weight("model.layers.1.mlp.Wi.weight", lambda weight: weight[:, :-1].contiguous()), [*OURS, *PEERS]),
        (_vocabulary, [*OURS, *PEERS]),
        (_edit("tokenizer_config.json", model_max_length=40), [*OURS, "transformers"]),
        (_identity, [*OURS, "sentence-transformers"]),
        (lambda folder: (folder / "tokenizer.json").unlink(), [*OURS, *PEERS]),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"damaged"), [*OURS, *PEERS]),
        (lambda folder: (folder / "config.json").write_text("{}"), [*OURS, *PEERS]),
    ],
)  # fmt: skip
def test_one_that_was_tampered_with_is_refused_by_name(tamper, named, whole, folder):
    model, encoder, _ = whole
    tamper(folder)
    with pytest.raises(ExportError) as error:
        ParityGate(model, encoder)(folder)
    rows = [Agreement(**row) for row in json.loads((folder / "parity.json").read_text())]
    assert [row.consumer for row in rows if row.refused] == named
    for row in rows:
        assert (str(row) in str(error.value)) == row.refused
    assert "\n" not in str(error.value)


def test_what_the_figures_say_by_hand():
    assert parity.largest_gap(np.asarray([10.001, 0.5]), np.asarray([10.0, 0.498])) == pytest.approx(2e-4)
    assert parity.largest_gap(np.asarray([0.5, 0.3]), np.asarray([0.5, 0.301])) == pytest.approx(1e-3)
    assert parity.largest_gap(np.asarray([1.0, np.nan]), np.asarray([1.0, 1.0])) is None
    assert parity.largest_gap(np.asarray([1.0]), np.asarray([1.0, 1.0])) is None
    assert Agreement("a", "1", 2, 1.1e-5).refused
    assert not Agreement("a", "1", 2, 1e-5).refused
    assert Agreement("a", "1", 2, None).refused
    assert not Agreement("a", "1", 2, 0.5, tolerance=None).refused
    assert str(Agreement("transformers", "5.24.0", 23, 0.25)) == "transformers 5.24.0 differs by 0.25"
    assert str(Agreement("a", "", 23, None, note="why")) == "a does not score as it should (why)"


def test_other_environments_are_judged_alike(whole, monkeypatch):
    """One that cuts elsewhere by itself is told how not to; one that scores otherwise is refused."""
    model, encoder, folder = whole
    memory = InMemory(model, encoder)
    answer = {"consumer": "sentence-transformers", "version": "4.0.1", "cuts_at": 512}
    answers = [answer | {"logits": memory.padded.tolist()}, answer | {"logits": (memory.padded + 1e-3).tolist()}]
    monkeypatch.setattr(parity, "by_interpreter", lambda python, place, probe: answers)
    same, other = agreements(memory, folder, ["python"])[-2:]
    assert not same.refused
    assert same.note == "given max_length=48; by itself it cuts at 512 tokens"
    assert other.refused


def test_it_does_not_wait_for_processes_that_have_ended(whole, tmp_path):
    """As after a training on several devices, whose first process goes on alone."""
    import torch.distributed

    model, encoder, folder = whole
    torch.distributed.init_process_group("gloo", f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.distributed, "get_world_size", lambda *_: 2)
            patch.setattr(torch.distributed, "all_reduce", lambda *_: pytest.fail("it waits for the others"))
            assert not any(row.refused for row in agreements(InMemory(model, encoder), folder))
    finally:
        torch.distributed.destroy_process_group()


def test_what_a_library_prints_does_not_spoil_a_programs_one_line(whole, monkeypatch, capsys):
    model, encoder, folder = whole
    score = parity.consumer.by_transformers
    monkeypatch.setattr(parity.consumer, "by_transformers", lambda *given: print("[INFO] hello") or score(*given))
    assert not any(row.refused for row in agreements(InMemory(model, encoder), folder))
    assert capsys.readouterr().out == ""
