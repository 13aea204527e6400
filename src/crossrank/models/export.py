"""Writes a trained model as a folder that sentence-transformers and transformers load.

The layout is the portable one: config.json with the activation that CrossEncoder applies, safetensors under
transformers' own parameter names, and a plain fast tokenizer.
"""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from crossrank.data.tokens import PairEncoder
from crossrank.errors import ExportError
from crossrank.models.cross_encoder import CrossEncoder
from crossrank.models.lora import merged_state

log = logging.getLogger(__name__)

SIGMOID = "torch.nn.modules.activation.Sigmoid"
LENGTHS = "sentence_bert_config.json"  # where text-embeddings-inference reads how many tokens to take
SPECIAL_TOKENS = ("cls_token", "sep_token", "pad_token", "mask_token", "unk_token", "bos_token", "eos_token")


def export(
    model: CrossEncoder, encoder: PairEncoder, folder: Path, check: Callable[[Path], None] | None = None
) -> Path:
    """Write the model into `folder`, replacing what is there; the folder is whole or absent.

    Adapters are added to the matrices they stand beside, so that a plain model is written; `model` stays as it is. What
    `check` refuses is left in `<folder>.refused` for a person to look at, and `folder` as it was.

    Raises:
        ExportError: `check` refuses what was written.
    """
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    _write_json(temporary / "config.json", _config(model))
    _write_json(temporary / "tokenizer_config.json", _tokenizer_config(encoder))
    _write_json(temporary / LENGTHS, {"max_seq_length": encoder.max_length, "do_lower_case": False})
    encoder.tokenizer.backend_tokenizer.save(str(temporary / "tokenizer.json"))
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in merged_state(model.classifier).items()}
    log.info("exporting %s parameters", f"{sum(weight.numel() for weight in weights.values()):,}")
    save_file(weights, temporary / "model.safetensors", metadata={"format": "pt"})
    refused = folder.with_name(f"{folder.name}.refused")
    shutil.rmtree(refused, ignore_errors=True)
    try:
        if check:
            check(temporary)
    except ExportError as error:
        temporary.rename(refused)
        raise ExportError(f"{error}; it lies in {refused} instead of {folder}") from error
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
    return folder


def _config(model: CrossEncoder) -> dict[str, Any]:
    config: dict[str, Any] = model.config.to_dict()
    config |= {
        "architectures": [type(model.classifier).__name__],
        "id2label": {"0": "LABEL_0"},
        "label2id": {"LABEL_0": 0},
        "torch_dtype": "float32",
        "sentence_transformers": {"activation_fn": SIGMOID, "version": "4.0.1"},
    }
    if config["model_type"] == "modernbert":  # transformers 4 reads other names for the same numbers
        rope = config["rope_parameters"]
        config |= {
            "global_rope_theta": rope["full_attention"]["rope_theta"],
            "local_rope_theta": rope["sliding_attention"]["rope_theta"],
            "global_attn_every_n_layers": _global_period(config["layer_types"]),
        }
    return {
        key: value for key, value in config.items() if not key.startswith("_") and not isinstance(value, torch.dtype)
    }


def _global_period(layer_types: list[str]) -> int:
    """Return n such that every n-th layer, from the first on, attends globally."""
    following = [i for i, kind in enumerate(layer_types) if kind == "full_attention" and i > 0]
    return following[0] if following else max(1, len(layer_types))


def _tokenizer_config(encoder: PairEncoder) -> dict[str, Any]:
    tokenizer = encoder.tokenizer
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": encoder.max_length,
        "model_input_names": list(tokenizer.model_input_names),
        "clean_up_tokenization_spaces": False,
        **{name: str(getattr(tokenizer, name)) for name in SPECIAL_TOKENS if getattr(tokenizer, name, None)},
    }


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def exported_files(folder: Path) -> list[Path]:
    """Return the files of an exported model but its card, which a person may edit."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return [file for file in files if file != folder / "README.md"]
