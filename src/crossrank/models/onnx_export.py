"""Writes an exported model as ONNX too, by torch's own exporter: float32, and int8 for CPUs.

optimum-onnx, which sentence-transformers reads such files by, does not support transformers 5 (0.1.0 asks for less than
4.58), so it cannot write them here; the files have the names and the inputs that it expects.
"""

import importlib.util
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from crossrank.errors import ConfigError
from crossrank.models.backbones import quiet_transformers
from crossrank.models.cross_encoder import has_token_types

log = logging.getLogger(__name__)

FP32, INT8 = "onnx/model.onnx", "onnx/model_qint8.onnx"
OPSET = 20  # the first with Gelu as an operator of its own
AXES = ("batch", "tokens")  # may have any size
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
TRACED = (("how do I sort", "Sort the items."), ("a longer question than the first", "A text."))


def refuse_without_onnx() -> None:
    """Check that what writes and runs ONNX is installed.

    Raises:
        ConfigError: it is not.
    """
    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        raise ConfigError([f"onnx: {', '.join(missing)} not installed; pip install -e '.[onnx]', or leave onnx=false"])


def write_onnx(folder: Path) -> None:
    """Write `onnx/model.onnx` and `onnx/model_qint8.onnx` into an exported model's folder.

    The graph takes int64 [batch, tokens] by the tokenizer's names and gives `logits`, float32 [batch, 1].
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    (folder / "onnx").mkdir(exist_ok=True)
    with quiet_transformers(), _quiet_export():
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        classifier = AutoModelForSequenceClassification.from_pretrained(
            folder, attn_implementation="sdpa", trust_remote_code=False, use_safetensors=True
        )
        _export(classifier.eval(), tokenizer, folder / FP32)
        # a scale a column makes the file 0.4 % larger, and Kendall's tau of MiniLM with a new head 0.91 instead of 0.77
        quantize_dynamic(folder / FP32, folder / INT8, weight_type=QuantType.QInt8, per_channel=True)
    log.info("wrote %s and %s (opset %d)", FP32, INT8, OPSET)


def _export(classifier: Any, tokenizer: Any, file: Path) -> None:
    encoded = tokenizer(*map(list, zip(*TRACED, strict=True)), padding=True, return_tensors="pt")
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if has_token_types(classifier.config) else [])]
    shapes = tuple(dict(enumerate(AXES)) for _ in names)
    program = torch.onnx.export(
        _Logits(classifier, names).eval(), tuple(encoded[name] for name in names), dynamo=True, verbose=False,
        input_names=names, output_names=["logits"], dynamic_shapes={"tensors": shapes}, opset_version=OPSET,
    )  # fmt: skip
    assert program is not None
    program.save(file)


class _Logits(nn.Module):
    """A classifier with its inputs by place."""

    def __init__(self, classifier: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.classifier, self.names = classifier, names

    def forward(self, *tensors: Tensor) -> Tensor:
        logits: Tensor = self.classifier(**dict(zip(self.names, tensors, strict=True))).logits
        return logits


def in_words(file: Path) -> str:
    """Return what a file says of itself: its operators' version and its inputs with the sizes that they may have."""
    import onnx

    model = onnx.load(file, load_external_data=False)
    opset = next(known.version for known in model.opset_import if known.domain in ("", "ai.onnx"))
    inputs = [
        f"{given.name}[{', '.join(size.dim_param or str(size.dim_value) for size in given.type.tensor_type.shape.dim)}]"
        for given in model.graph.input
    ]
    return f"opset {opset}; {', '.join(inputs)}"


@contextmanager
def _quiet_export() -> Iterator[None]:
    """Keep back what the exporter says of packages that are not used and the quantiser of a pass that is not needed."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
