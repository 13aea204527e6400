import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder

from crossrank.inference.teacher import CrossEncoderTeacher

PAIRS = [("sort a list", "return the items in order"), ("sort a list", "close a file"), ("who", "nobody knows")]


def test_probabilities_are_those_of_sentence_transformers_from_a_run_or_its_export(smoke_run):
    reference = CrossEncoder(str(smoke_run.folder / "export"), device="cpu").predict(
        PAIRS, activation_fn=torch.nn.Sigmoid()
    )
    for place in (smoke_run.folder, smoke_run.folder / "export"):
        found = CrossEncoderTeacher(str(place)).probabilities(PAIRS)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, reference, atol=1e-6)


def test_the_fingerprint_is_of_the_weights_and_of_what_the_answers_depend_on(smoke_run, tmp_path):
    import shutil

    export = smoke_run.folder / "export"
    one = CrossEncoderTeacher(str(export))
    assert CrossEncoderTeacher(str(smoke_run.folder), tokens_per_batch=64).fingerprint() == one.fingerprint()
    for other in ({"candidates": 3}, {"max_length": 32}, {"precision": "bf16"}):
        assert CrossEncoderTeacher(str(export), **other).fingerprint() != one.fingerprint()
    shutil.copytree(export, copy := tmp_path / "copy")
    raw = bytearray((copy / "model.safetensors").read_bytes())
    raw[-1] ^= 1
    (copy / "model.safetensors").write_bytes(raw)
    assert CrossEncoderTeacher(str(copy)).fingerprint() != one.fingerprint()


def test_no_candidate_is_no_question():
    with pytest.raises(ValueError, match="candidates counts documents a question"):
        CrossEncoderTeacher("a/b", candidates=0)
