"""Scores pairs with an exported model as its users would: by sentence-transformers, transformers and onnxruntime.

Other interpreters are given this file to run (`python -I - REQUEST ANSWER`), with whatever versions they hold: so it
imports nothing of crossrank, nothing at its top that may be missing, and runs on Python 3.9 too.
"""

import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

Pair = tuple[str, str]
Groups = Sequence[Sequence[Pair]]  # pairs that are scored together, in one padded batch
Answer = dict[str, Any]


def by_sentence_transformers(folder: str, groups: Groups, max_length: int) -> Answer:
    """Score by `CrossEncoder`, which is told to cut at `max_length` where it would not by itself."""
    import sentence_transformers
    import torch
    import transformers
    from sentence_transformers import CrossEncoder

    def load(**more: Any) -> Any:
        return CrossEncoder(
            folder, device="cpu", trust_remote_code=False, model_kwargs={"use_safetensors": True}, **more
        )

    model = load()
    cuts_at = int(model.tokenizer.model_max_length)
    if cuts_at != max_length:
        model = load(max_length=max_length)
    activation: Any = model.activation_fn  # which a call of predict would change, up to version 5
    logits: list[float] = []
    for pairs in groups:
        logits += map(float, model.predict(list(pairs), activation_fn=torch.nn.Identity(), show_progress_bar=False))
    return {
        "consumer": "sentence-transformers",
        "version": f"{sentence_transformers.__version__} (transformers {transformers.__version__})",
        "logits": logits,
        "scores": activation(torch.tensor(logits)).tolist(),
        "cuts_at": cuts_at,
    }


def by_transformers(folder: str, groups: Groups, longest: Pair) -> Answer:
    """Score by `AutoModelForSequenceClassification`; return the ids that `AutoTokenizer` gives each pair, too.

    The `longest` pair is not scored, for that may take minutes: its ids are the last.
    """
    import torch
    import transformers

    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    model: Any = transformers.AutoModelForSequenceClassification.from_pretrained(
        folder, trust_remote_code=False, use_safetensors=True
    ).eval()
    logits: list[float] = []
    for pairs in groups:
        with torch.inference_mode():
            logits += model(**_encoded(tokenizer, pairs, "pt")).logits.float()[:, 0].tolist()
    return {
        "consumer": "transformers",
        "version": transformers.__version__,
        "logits": logits,
        "ids": [ids for pairs in [*groups, [longest]] for ids in _encoded(tokenizer, pairs)["input_ids"]],
    }


def by_onnxruntime(folder: str, groups: Groups, file: str) -> Answer:
    """Score by the ONNX file of this name in the folder, on the CPU."""
    import onnxruntime
    import transformers

    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    session = onnxruntime.InferenceSession(str(Path(folder, file)), providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    logits: list[float] = []
    for pairs in groups:
        encoded = _encoded(tokenizer, pairs, "np")
        logits += session.run(["logits"], {name: encoded[name] for name in names})[0][:, 0].tolist()
    return {"consumer": f"onnxruntime, {file}", "version": onnxruntime.__version__, "logits": logits}


def _encoded(tokenizer: Any, pairs: Sequence[Pair], tensors: str = "") -> Any:
    """Encode lists of texts: of a single pair the tokenizer would drop a document that is empty."""
    questions, documents = [question for question, _ in pairs], [document for _, document in pairs]
    return tokenizer(questions, documents, padding=bool(tensors), truncation=True, return_tensors=tensors or None)


def main(request: str, answer: str) -> None:
    """Answer a request, a file of JSON, by another: what each library that is here found of the pairs."""
    asked = json.loads(Path(request).read_text(encoding="utf-8"))
    groups = [[(question, document) for question, document in pairs] for pairs in asked["groups"]]
    found = [by_transformers(asked["folder"], groups, asked["longest"])]
    with suppress(ImportError):  # there may be transformers alone
        found.append(by_sentence_transformers(asked["folder"], groups, asked["max_length"]))
    Path(answer).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
