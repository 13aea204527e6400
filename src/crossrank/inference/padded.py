"""Loads any cross-encoder: by the packed path where it knows the model, else by sentence-transformers' padded one."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoConfig, AutoTokenizer

from crossrank.data.tokens import PairEncoder
from crossrank.errors import ModelError
from crossrank.hub import Asset, resolve
from crossrank.inference.scorer import PairScorer
from crossrank.models.backbones import Pretrained, or_model_error
from crossrank.models.cross_encoder import HEADS

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder  # takes seconds, and is needed for the padded path alone

log = logging.getLogger(__name__)

Precision = Literal["fp32", "bf16"]
EMBEDDERS = ("SentenceTransformer", "SparseEncoder")  # of sentence-transformers, by what its files call them
POOLED = ("Pooling", "StaticEmbedding")  # the modules that make a text's vector
PROBED_LENGTH = 64  # enough for the special tokens of any tokenizer


class PaddedScorer:
    """Scores (question, document) texts by `sentence_transformers.CrossEncoder.predict`: raw logits, in their order.

    `max_length` is in tokens of the pair and defaults to the model's own. Equal pairs are scored once.

    Raises:
        ModelError: the model has more than one label, or `max_length` is more than it takes.
    """

    def __init__(
        self, model: "CrossEncoder", max_length: int | None = None, autocast: torch.dtype | None = None
    ) -> None:
        if model.num_labels != 1:
            raise ModelError(f"a reranker has one label, this model has {model.num_labels}")
        own = int(model.max_seq_length or model.tokenizer.model_max_length)
        if max_length is not None and max_length > own:
            raise ModelError(f"max_length {max_length} is more than the {own} tokens that the model can take")
        self.model, self.max_length, self.autocast = model, max_length or own, autocast

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> npt.NDArray[np.float32]:
        """Return the logit of each pair."""
        if not pairs:
            return np.zeros(0, np.float32)
        row = {pair: place for place, pair in enumerate(dict.fromkeys(pairs))}
        own = self.model.max_seq_length
        self.model.max_seq_length = self.max_length
        try:
            with torch.autocast(self.model.device.type, dtype=self.autocast, enabled=bool(self.autocast)):
                scores = self.model.predict(list(row), activation_fn=torch.nn.Identity(), show_progress_bar=False)
        except ValueError as error:  # a tokenizer without padding token, for one
            raise ModelError(f"sentence-transformers cannot score with this model: {error}") from error
        finally:
            self.model.max_seq_length = own
        found: npt.NDArray[np.float32] = np.asarray(scores, np.float32)[[row[pair] for pair in pairs]]
        return found

    def forget(self) -> None:
        """Do nothing: no text is kept."""

    def truncated(self, pairs: Sequence[tuple[str, str]]) -> npt.NDArray[np.bool_]:
        """Return which pairs have more tokens than `max_length`, as the model's tokenizer counts them."""
        if not pairs:
            return np.zeros(0, np.bool_)
        questions, documents = map(list, zip(*pairs, strict=True))
        encoded = self.model.tokenizer(questions, documents, truncation=False, padding=False, verbose=False)
        return np.asarray([len(ids) > self.max_length for ids in encoded["input_ids"]])


def load_scorer(
    path: str,
    max_length: int | None = None,
    tokens_per_batch: int | None = None,
    precision: Precision = "fp32",
    device: str | None = None,
) -> PairScorer | PaddedScorer:
    """Load a trained cross-encoder (a folder, `pypi:<distribution>` or a hub id) onto the GPU, if there is one.

    `tokens_per_batch` is for the packed path; `device` is torch's name of another place.

    Raises:
        AssetError: the model is not to be had.
        ModelError: it is no cross-encoder with one label.
    """
    autocast = torch.bfloat16 if precision == "bf16" else None
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    folder = str(resolve(Asset("model", path)))
    _refuse_embedder(Path(folder), path)
    reason = _unknown_to_the_packed_path(folder)
    if reason is None:
        packed = device == "cpu" or autocast is not None  # packed attention on CUDA does not take float32
        backbone = Pretrained(
            path, max_length=max_length, attention="auto" if packed else "padded",
            attention_dropout=0.0, hidden_dropout=0.0,
        )  # fmt: skip
        encoder = backbone.encoder()
        return PairScorer(backbone.build(seed=None).eval().to(device), encoder, tokens_per_batch, autocast)
    from sentence_transformers import CrossEncoder

    log.warning("%s is scored by sentence-transformers, in padded batches, which is slower: %s", path, reason)
    with or_model_error(f"{path} is no cross-encoder that sentence-transformers can load"):
        model = CrossEncoder(folder, device=device, trust_remote_code=False, model_kwargs={"use_safetensors": True})
    return PaddedScorer(model, max_length, autocast)


def place_of(reranker: str) -> str:
    """Return the place of a model; of a run's folder, its export."""
    folder = Path(reranker).expanduser()
    inside = folder / "export"
    is_run = (inside / "config.json").is_file() and not (folder / "config.json").is_file()
    return str(inside) if is_run else reranker


def at_length(scorer: PairScorer | PaddedScorer, max_length: int) -> PairScorer | PaddedScorer:
    """Return a scorer with the same weights, another `max_length` and nothing tokenised yet.

    Raises:
        ModelError: `max_length` leaves no room for text, or is more than a padded model takes.
    """
    if isinstance(scorer, PaddedScorer):
        return PaddedScorer(scorer.model, max_length, scorer.autocast)
    encoder = PairEncoder(scorer.encoder.tokenizer, max_length)
    return PairScorer(scorer.model, encoder, scorer.tokens_per_batch, scorer.autocast)


def _unknown_to_the_packed_path(folder: str) -> str | None:
    """Return why the packed path cannot take a model; None where it can, or where nothing else could either."""
    try:
        config: Any = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception:  # whatever damaged files raise; the packed path will say it
        return None
    with or_model_error(f"{folder} has settings of sentence-transformers or transformers that make no sense"):
        reason, architecture = _more_than_a_classifier(Path(folder)), str((config.architectures or [""])[0])
    if reason:
        return reason
    if config.model_type not in HEADS:
        if not architecture.endswith(("ForSequenceClassification", "ForCausalLM")):
            raise ModelError(f"{folder} is no trained reranker: its {config.model_type} has no classification head")
        return f"the packed path knows the heads of {', '.join(sorted(HEADS))}, not of {config.model_type}"
    try:
        with or_model_error(f"{folder} holds a tokenizer that cannot encode a pair"):
            PairEncoder(tokenizer, PROBED_LENGTH)
    except ModelError as error:
        return str(error)
    return None


def _refuse_embedder(folder: Path, path: str) -> None:
    """Check that the folder is not one of sentence-transformers' models that embed texts one by one.

    Raises:
        ModelError: it is; what sentence-transformers made of it would have a head drawn at random.
    """
    with or_model_error(f"{path} has settings of sentence-transformers or transformers that make no sense"):
        kind, config = _read(folder / "config_sentence_transformers.json").get("model_type"), folder / "config.json"
        modules = [str(module["type"]) for module in _read(folder / "modules.json") or []]
        embeds = kind in EMBEDDERS or (kind is None and any(name.endswith(POOLED) for name in modules))
        architecture = str((_read(config).get("architectures") or [""])[0])
    if embeds and not architecture.endswith("ForSequenceClassification"):
        raise ModelError(
            f"{path} is no trained reranker: it is a {kind or EMBEDDERS[0]}, which embeds one text at a time; give a "
            "CrossEncoder, which reads a question with a document, or train it first"
        )


def _read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _more_than_a_classifier(folder: Path) -> str | None:
    """Return what sentence-transformers does for a cross-encoder that it wrote besides calling transformers' class."""
    kind, modules = folder / "config_sentence_transformers.json", folder / "modules.json"
    known = _read(kind)
    if known.get("model_type") != "CrossEncoder":
        return None
    if known.get("default_prompt_name"):
        return "it puts a prompt before the texts"
    if modules.is_file() and len(_read(modules)) > 1:
        return "it is made of several modules of sentence-transformers"
    return None
